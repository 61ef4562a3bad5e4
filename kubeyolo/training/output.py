"""The output folder of a training run: when it is complete, how it is cleared and published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from safetensors.numpy import save_file

from kubeyolo.bundle import MANIFEST_NAME, WEIGHTS, BundleManifest, open_bundle, publish_bundle
from kubeyolo.errors import InputError
from kubeyolo.storage.base import Store
from kubeyolo.storage.claim import check_claim
from kubeyolo.storage.workspace import temporary_folder
from kubeyolo.training import finite, history
from kubeyolo.training.checkpoints import TrainingState, newest_checkpoint, newest_manifest, remove_checkpoints
from kubeyolo.training.extension import (
    EXTENDED,
    as_pairs,
    changed_keys,
    extended_identity,
    extension_lines,
    is_longer,
    lengths,
)
from kubeyolo.training.finite import Guard
from kubeyolo.training.loop_parts import Output
from kubeyolo.training.result import RESULT_NAME, TrainingResult, parse_result
from kubeyolo.training.spec import TrainingSpec, refuse_changes

if TYPE_CHECKING:
    from kubeyolo.training.engine import Engine


def is_complete(store: Store, identity: dict[str, Any], spec: TrainingSpec, show: Callable[[str], None]) -> bool:
    """Tell whether the output holds the finished run of this spec, and show it if so.

    One of another version of the library counts: its bundle says by which it was made. One whose bundle is damaged
    does not: its weights are published again from its last checkpoint. Nor does one that is to be extended, or whose
    extension ended at values that are not finite and is run again with other settings.

    Raises:
        InputError: It holds a finished run under other conditions.
    """
    # Looked at first: another process that begins anew removes it after the result.
    was_not_finite = store.exists(finite.FILE_NAME)
    if not spec.resume or not store.exists(RESULT_NAME) or not store.exists(f"bundle/{MANIFEST_NAME}"):
        return False
    result = parse_result(store.read_bytes(RESULT_NAME), store.uri_of(RESULT_NAME))
    if not is_result_of(result.identity, identity, was_not_finite, store.uri):
        return False
    try:
        open_bundle(store.uri_of("bundle"))
    except InputError as error:
        show(f"warning: {error}; publishing again from the newest checkpoint")
        return False
    other = (
        ""
        if result.code_digest == spec.code_digest
        else " (of another version: give another output with --output to repeat it)"
    )
    show(f"{store.uri}: training is complete{other}, nothing to do")
    for line in result.warnings:
        show(f"warning: {line}")
    if words := unfinished_extension(store, result.identity):
        show(words)
    return True


def is_result_of(saved: dict[str, Any], identity: dict[str, Any], was_not_finite: bool, place: str) -> bool:
    """Tell whether a finished training is the one that is asked for, and not one to be extended or begun anew.

    Args:
        saved: Identity of the finished training.
        identity: What the weights depend on that are asked for.
        was_not_finite: Whether an extension of it ended at values that are not finite.
        place: URI of the output.

    Raises:
        InputError: It is another training.
    """
    if not changed_keys(saved, identity):
        return True
    if not is_longer(saved, identity) and not was_not_finite:
        refuse_changes(saved, identity, place)
    return False


def unfinished_extension(store: Store, identity: dict[str, Any]) -> str:
    """Return what to type to go on with the extension of a finished training, empty where none was begun.

    Args:
        store: The output.
        identity: Of the finished training.
    """
    newest = newest_manifest(store)
    if newest is None or not is_longer(identity, newest.identity):
        return ""
    return (
        f"{store.uri}: an extension of this training has stopped at step {newest.step}; the same command with "
        f"{as_pairs(newest.identity, changed_keys(identity, newest.identity))} continues it"
    )


def clear_output(store: Store, keep_bundle: bool = False) -> None:
    """Remove what an earlier run left, so that training starts anew.

    Args:
        store: The output.
        keep_bundle: Whether to leave the bundle of a finished training, until the next one takes its place.
    """
    store.delete(RESULT_NAME)
    if not keep_bundle:
        store.delete_tree("bundle", first=MANIFEST_NAME)
    remove_checkpoints(store)
    store.delete(history.FILE_NAME)
    # Last: another process that does not find it finds no checkpoint either.
    store.delete(finite.FILE_NAME)


def state_to_continue(
    store: Store, identity: dict[str, Any], spec: TrainingSpec, is_first: bool, show: Callable[[str], None]
) -> TrainingState | None:
    """Return what the output holds to continue from; None where training starts anew.

    Its identity is the one that the training has from now on. A training that differs from that of the output in
    nothing but a larger length extends it. Training starts anew without ``resume``, without a checkpoint, and when one
    that ended at values that are not finite is run again with another learning rate, warm-up or clipping: what it had
    learned came of the old ones.

    Args:
        store: The output.
        identity: What the final weights depend on.
        spec: The training run.
        is_first: Whether this is the process that removes what is no longer used.
        show: Prints one line.

    Raises:
        InputError: The output holds a run under other conditions.
    """
    if not spec.resume:
        if is_first:
            clear_output(store)
        return None
    # Before the checkpoints are looked at: the first process removes it after them.
    was_not_finite = store.exists(finite.FILE_NAME)
    state = newest_checkpoint(store, lambda line: show(f"warning: {line}"))
    if state is None:
        _refuse_without_checkpoint(store, identity, was_not_finite)
    else:
        changed = changed_keys(state.identity, identity)
        if was_not_finite and changed and finite.REMEDIES.issuperset(changed):
            values = ", ".join(f"{key} = {identity[key]} in place of {state.identity.get(key)}" for key in changed)
            show(f"beginning anew with {values}: the training before ended at values that are not finite")
            if is_first:
                clear_output(store, keep_bundle=True)
            return None
        if was_not_finite:
            # What may not change here is named before what may.
            saved, now = ({key: one[key] for key in one.keys() - finite.REMEDIES} for one in (state.identity, identity))
            if not is_longer(saved, now):
                refuse_changes(saved, now, store.uri)
        if not is_longer(state.identity, identity):
            refuse_changes(state.identity, identity, store.uri)
        if state.code_digest != spec.code_digest:
            show("warning: the checkpoint was written by another version of the library")
        _continue_as(state, identity, show)
    if is_first:
        store.delete(finite.FILE_NAME)
    return state


def _continue_as(state: TrainingState, identity: dict[str, Any], show: Callable[[str], None]) -> None:
    """Give a checkpoint the identity that the training has from now on; say and note it where that extends it."""
    saved, state.identity = state.identity, extended_identity(state.identity, identity, state.step)
    if not is_longer(saved, identity):
        return
    show(f"extending {lengths(saved, identity)} at step {state.step}: it goes on by the schedule of the new length")
    rows = history.TrainingHistory.from_bytes(state.history)
    last = rows.rows[-1].epoch if rows.rows else 0
    rows.append(history.HistoryRow(kind="extended", step=state.step, epoch=last, length=lengths(saved, identity)))
    state.history = rows.to_bytes()


def _refuse_without_checkpoint(store: Store, identity: dict[str, Any], was_not_finite: bool) -> None:
    """Refuse to put another training in the place of a finished one of which the bundle alone is left.

    Raises:
        InputError: It is longer, or of other settings.
    """
    if not store.exists(RESULT_NAME):
        return
    saved = parse_result(store.read_bytes(RESULT_NAME), store.uri_of(RESULT_NAME)).identity
    if is_longer(saved, identity):
        raise InputError(
            f"{store.uri}: the training cannot be extended {lengths(saved, identity)}: it has no checkpoint that can "
            "be read; choose another output with --output to train from the start"
        )
    if not (was_not_finite and finite.REMEDIES.issuperset(changed_keys(saved, identity))):
        refuse_changes(saved, identity, store.uri)


def publish_weights(
    output: Output,
    engine: Engine,
    sessions: Sequence[tuple[int, float]],
    manifest: BundleManifest,
    guard: Guard,
    *,
    prefix: str = "",
    warnings: Sequence[str] = (),
    anchor_recall: float | None = None,
) -> str:
    """Publish the averaged weights as a bundle, mark the run as complete, and return the URI of the bundle.

    Args:
        output: Where, and what the weights depend on.
        engine: Of the training.
        sessions: First step and seconds of each stretch of training.
        manifest: Of the bundle. Whatever is made of the bundle takes the warnings along, to the model card.
        guard: Looks whether the weights are finite.
        prefix: Only weights whose names begin with it are published.
        warnings: What the training warned of.
        anchor_recall: Share of the boxes that an anchor answers for, 0..1; None of a backbone.

    Raises:
        NotFiniteError: A weight or a statistic is not finite.
        WorkError: Another process has taken the output over.
    """
    store, extensions = output.store, extension_lines(output.identity)
    told: dict[str, Any] = {"train": {"warnings": list(warnings)}} if warnings else {}
    told |= {EXTENDED: extensions} if extensions else {}
    arrays = {key: array for key, array in engine.averaged().items() if key.startswith(prefix)}
    guard.check(engine.step, {"weights": arrays})
    check_claim(store, output.writer)
    with temporary_folder("bundle") as folder:
        path = folder / WEIGHTS
        save_file(arrays, path)
        told_manifest = manifest.model_copy(update={"metrics": {**manifest.metrics, **told}})
        uri = publish_bundle(store.uri_of("bundle"), told_manifest, {WEIGHTS: path})
    result = TrainingResult(
        identity=output.identity,
        code_digest=output.code_digest,
        steps=engine.step,
        bundle=uri,
        seconds=round(sum(seconds for _, seconds in sessions), 2),
        resumed_at=[step for step, _ in sessions[1:]],
        warnings=tuple(warnings),
        anchor_recall=anchor_recall,
    )
    store.write_bytes(RESULT_NAME, result.model_dump_json(indent=2).encode())
    return uri
