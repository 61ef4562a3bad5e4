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
from kubeyolo.training.checkpoints import TrainingState, newest_checkpoint, remove_checkpoints
from kubeyolo.training.finite import Guard
from kubeyolo.training.result import RESULT_NAME, TrainingResult, parse_result
from kubeyolo.training.spec import TrainingSpec, refuse_changes

if TYPE_CHECKING:
    from kubeyolo.training.engine import Engine


def is_complete(store: Store, identity: dict[str, Any], spec: TrainingSpec, show: Callable[[str], None]) -> bool:
    """Tell whether the output holds the finished run of this spec, and show it if so.

    One of another version of the library counts: its bundle says by which it was made. One whose bundle is damaged
    does not: its weights are published again from its last checkpoint.

    Raises:
        InputError: It holds a finished run under other conditions.
    """
    if not spec.resume or not store.exists(RESULT_NAME) or not store.exists(f"bundle/{MANIFEST_NAME}"):
        return False
    result = parse_result(store.read_bytes(RESULT_NAME), store.uri_of(RESULT_NAME))
    refuse_changes(result.identity, identity, store.uri)
    try:
        open_bundle(store.uri_of("bundle"))
    except InputError as error:
        show(f"warning: {error}; publishing again from the newest checkpoint")
        return False
    other = "" if result.code_digest == spec.code_digest else " (of another version: give another output to repeat it)"
    show(f"{store.uri}: training is complete{other}, nothing to do")
    return True


def clear_output(store: Store) -> None:
    """Remove what an earlier run left, so that training starts anew."""
    store.delete(RESULT_NAME)
    store.delete_tree("bundle", first=MANIFEST_NAME)
    remove_checkpoints(store)
    store.delete(history.FILE_NAME)
    # Last: another process that does not find it finds no checkpoint either.
    store.delete(finite.FILE_NAME)


def state_to_continue(
    store: Store, identity: dict[str, Any], spec: TrainingSpec, is_first: bool, show: Callable[[str], None]
) -> TrainingState | None:
    """Return what the output holds to continue from; None where training starts anew.

    It starts anew without ``resume``, without a checkpoint, and when a training that ended at values that are not
    finite is run again with another learning rate, warm-up or clipping: what it had learned came of the old ones.

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
    if state is not None:
        changed = sorted(
            key for key in state.identity.keys() | identity.keys() if state.identity.get(key) != identity.get(key)
        )
        if was_not_finite and changed and finite.REMEDIES.issuperset(changed):
            values = ", ".join(f"{key} = {identity[key]} in place of {state.identity[key]}" for key in changed)
            show(f"beginning anew with {values}: the training before ended at values that are not finite")
            if is_first:
                clear_output(store)
            return None
        if was_not_finite:
            # What may not change here is named before what may.
            saved, now = ({key: one[key] for key in one.keys() - finite.REMEDIES} for one in (state.identity, identity))
            refuse_changes(saved, now, store.uri)
        refuse_changes(state.identity, identity, store.uri)
        if state.code_digest != spec.code_digest:
            show("warning: the checkpoint was written by another version of the library")
    if is_first:
        store.delete(finite.FILE_NAME)
    return state


def publish_weights(
    store: Store,
    engine: Engine,
    sessions: list[tuple[int, float]],
    manifest: BundleManifest,
    identity: dict[str, Any],
    spec: TrainingSpec,
    guard: Guard,
    prefix: str = "",
    warnings: Sequence[str] = (),
    anchor_recall: float | None = None,
) -> str:
    """Publish the averaged weights as a bundle, mark the run as complete, and return the URI of the bundle.

    Only weights whose names begin with ``prefix`` are published; ``sessions`` are those of the loop;
    ``warnings`` and ``anchor_recall`` go into the result.

    Raises:
        NotFiniteError: A weight or a statistic is not finite.
        WorkError: Another process has taken the output over.
    """
    arrays = {key: array for key, array in engine.averaged().items() if key.startswith(prefix)}
    guard.check(engine.step, {"weights": arrays})
    check_claim(store, spec.writer)
    with temporary_folder("bundle") as folder:
        path = folder / WEIGHTS
        save_file(arrays, path)
        uri = publish_bundle(store.uri_of("bundle"), manifest, {WEIGHTS: path})
    result = TrainingResult(
        identity=identity,
        code_digest=spec.code_digest,
        steps=engine.step,
        bundle=uri,
        seconds=round(sum(seconds for _, seconds in sessions), 2),
        resumed_at=[step for step, _ in sessions[1:]],
        warnings=tuple(warnings),
        anchor_recall=anchor_recall,
    )
    store.write_bytes(RESULT_NAME, result.model_dump_json(indent=2).encode())
    return uri
