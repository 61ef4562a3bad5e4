"""The output folder of a training run: when it is complete, how it is cleared and published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.numpy import load_file, save_file

from kubeyolo.arrays import AnyArray
from kubeyolo.bundle import MANIFEST_NAME, RANGES, WEIGHTS, BundleManifest, open_bundle
from kubeyolo.errors import InputError
from kubeyolo.models.ranges import split_ranges, write_ranges
from kubeyolo.output_streams import Show
from kubeyolo.publishing import publish_bundle
from kubeyolo.storage.base import Store
from kubeyolo.storage.claim import check_claim
from kubeyolo.storage.place import Place
from kubeyolo.storage.workspace import temporary_folder
from kubeyolo.training import batch_pictures, best, event_files, finite, history, profile
from kubeyolo.training.checkpoints import TrainingState, newest_checkpoint, newest_manifest, remove_checkpoints
from kubeyolo.training.extension import (
    EXTENDED,
    as_pairs,
    changed_keys,
    continued_identity,
    distribution_words,
    extension_lines,
    is_longer,
    is_redistributed,
    lengths,
    value_of,
)
from kubeyolo.training.finite import Guard
from kubeyolo.training.loop_parts import Output
from kubeyolo.training.result import LAST, RESULT_NAME, Choice, TrainingResult, read_result
from kubeyolo.training.selection import Selection
from kubeyolo.training.spec import TrainingSpec, refuse_changes

if TYPE_CHECKING:
    from kubeyolo.training.engine import Engine


SHARES = "validation"
"""Folder of an output with the detections that other processes leave for the first during a validation."""


def is_complete(place: Place, identity: dict[str, Any], spec: TrainingSpec, show: Show) -> bool:
    """Tell whether the output has the finished training of this spec, and report it if so.

    A training by a different version of the library is accepted: its bundle names that version. A training with a
    damaged bundle is not accepted: its weights are published again from its last checkpoint. A training is also not
    accepted if it will be extended, or if its extension ended because of values that are not finite and is repeated
    with changed settings.

    Raises:
        InputError: The output has a finished training with different settings.
    """
    store = place.store
    # Checked first: a different process that starts from step 0 removes the note after the result.
    was_not_finite = store.exists(finite.FILE_NAME)
    if not spec.resume or not store.exists(RESULT_NAME) or not store.exists(f"bundle/{MANIFEST_NAME}"):
        return False
    result = read_result(store)
    if not is_result_of(result.identity, identity, was_not_finite, store.uri):
        return False
    try:
        open_bundle(place / "bundle")
    except InputError as error:
        show(f"warning: {error}; publishing again from the newest checkpoint")
        return False
    other = (
        ""
        if result.code_digest == spec.code_digest
        else " (by a different version; give a different output with --output to repeat it)"
    )
    show(f"{store.uri}: training is complete{other}, nothing to do")
    for line in result.warnings:
        show(f"warning: {line}")
    if words := unfinished_extension(store, result.identity):
        show(words)
    return True


def is_result_of(saved: dict[str, Any], identity: dict[str, Any], was_not_finite: bool, uri: str) -> bool:
    """Tell whether a finished training is the requested training, and must be neither extended nor repeated.

    Args:
        saved: Identity of the finished training.
        identity: Identity of the requested training.
        was_not_finite: Whether an extension of the finished training ended because of values that are not finite.
        uri: URI of the output.

    Raises:
        InputError: It is a different training.
    """
    if not changed_keys(saved, identity):
        return True
    if not is_longer(saved, identity) and not was_not_finite:
        refuse_changes(saved, identity, uri)
    return False


def unfinished_extension(store: Store, identity: dict[str, Any]) -> str:
    """Return how to continue the extension of a finished training; empty if no extension was started.

    Args:
        store: The output.
        identity: Identity of the finished training.
    """
    newest = newest_manifest(store)
    if newest is None or not is_longer(identity, newest.identity):
        return ""
    return (
        f"{store.uri}: an extension of this training has stopped at step {newest.step}; to continue it, run the same "
        f"command with {as_pairs(newest.identity, changed_keys(identity, newest.identity))}"
    )


def clear_output(store: Store, keep_bundle: bool = False) -> None:
    """Remove the files of an earlier training, so that the training starts from step 0.

    Args:
        store: The output.
        keep_bundle: Whether to keep the bundle of a finished training until the next bundle replaces it.
    """
    store.delete(RESULT_NAME)
    if not keep_bundle:
        store.delete_tree("bundle", first=MANIFEST_NAME)
        store.delete_tree(LAST, first=MANIFEST_NAME)
    remove_checkpoints(store)
    store.delete_tree(best.FOLDER)
    store.delete(history.FILE_NAME)
    for folder in (event_files.FOLDER, batch_pictures.FOLDER, profile.FOLDER, SHARES):
        store.delete_tree(folder)
    # Last: a process that does not see the note must see no checkpoint either.
    store.delete(finite.FILE_NAME)


def state_to_continue(
    store: Store, identity: dict[str, Any], spec: TrainingSpec, is_first: bool, show: Show
) -> TrainingState | None:
    """Return the state of the output that the training continues from; None if the training starts from step 0.

    The identity of the returned state is the identity of the training from now on. A training that differs from the
    training in the output only by a larger length extends that training. A training starts from step 0 if ``resume`` is
    not set or if there is no checkpoint. It also starts from step 0 if it ended because of values that are not finite
    and is repeated with a different learning rate, warm-up or clipping, because the checkpoint's weights come from the
    old settings.

    Args:
        store: The output.
        identity: What the final weights depend on.
        spec: The training run.
        is_first: Whether this process removes files that are no longer used.
        show: Shows a line.

    Raises:
        InputError: The output has a training with different settings.
    """
    if not spec.resume:
        if is_first:
            clear_output(store)
        return None
    # Checked before the checkpoints: the first process removes the note after them.
    was_not_finite = store.exists(finite.FILE_NAME)
    state = newest_checkpoint(store, lambda line: show(f"warning: {line}"))
    if state is None:
        _refuse_without_checkpoint(store, identity, was_not_finite)
    else:
        changed = changed_keys(state.identity, identity)
        if was_not_finite and changed and finite.REMEDIES.issuperset(changed):
            pairs = [(key, value_of(identity, key), value_of(state.identity, key)) for key in changed]
            values = ", ".join(f"{key} = {value} in place of {former}" for key, value, former in pairs)
            show(f"starting from step 0 with {values}: the previous training had infinite or NaN values")
            if is_first:
                clear_output(store, keep_bundle=True)
            return None
        if was_not_finite:
            # A setting that may not change is named before a setting that may change.
            saved, now = ({key: one[key] for key in one.keys() - finite.REMEDIES} for one in (state.identity, identity))
            if not is_longer(saved, now):
                refuse_changes(saved, now, store.uri)
        if not is_longer(state.identity, identity):
            refuse_changes(state.identity, identity, store.uri)
        if state.code_digest != spec.code_digest:
            show("warning: the checkpoint was written by a different version of the library")
        _continue_as(state, identity, show)
    if is_first:
        store.delete(finite.FILE_NAME)
    return state


def _continue_as(state: TrainingState, identity: dict[str, Any], show: Show) -> None:
    """Set the identity of a checkpoint to that of the training from now on; report new processes and a new length."""
    saved, state.identity = state.identity, continued_identity(state.identity, identity, state.step)
    if is_redistributed(saved, identity):
        show(
            f"continuing at step {state.step} with {distribution_words(identity)}, before with "
            f"{distribution_words(saved)}: the order of the images stays the same, the order of additions changes"
        )
    if not is_longer(saved, identity):
        return
    show(f"extending {lengths(saved, identity)} at step {state.step}: it continues with the schedule of the new length")
    rows = history.TrainingHistory.from_bytes(state.history)
    last = rows.rows[-1].epoch if rows.rows else 0
    rows.append(history.HistoryRow(kind="extended", step=state.step, epoch=last, length=lengths(saved, identity)))
    state.history = rows.to_bytes()


def _refuse_without_checkpoint(store: Store, identity: dict[str, Any], was_not_finite: bool) -> None:
    """Refuse to replace a finished training that has a bundle but no checkpoints.

    Raises:
        InputError: The new training is longer, or has different settings.
    """
    if not store.exists(RESULT_NAME):
        return
    saved = read_result(store).identity
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
    warnings: Sequence[str] = (),
    anchor_recall: float | None = None,
    selection: Selection | None = None,
) -> str:
    """Publish averaged weights as a bundle, mark the run as complete, and return the URI of the bundle.

    If the best weights are not the last, the last are published as well, as the bundle :data:`LAST`.

    Args:
        output: The output of the training, with the identity of the training.
        engine: Engine of the training.
        sessions: First step and duration in seconds of each session of the training.
        manifest: Manifest of the bundle. Its warnings are passed on to everything that is derived from the bundle.
        guard: Checks that the weights are finite.
        warnings: Warnings of the training.
        anchor_recall: Share of the boxes that fit an anchor, 0..1; None for a backbone.
        selection: What the choice of the weights depends on; None if nothing was validated.

    Raises:
        NotFiniteError: A weight or a statistic is not finite.
        WorkError: A different process has taken over the output.
    """
    store, stopped = output.place.store, selection.stopped if selection else ""
    notes: dict[str, Any] = {"warnings": list(warnings)} if warnings else {}
    notes |= {"stopped": stopped} if stopped else {}
    prefix = "backbone." if manifest.kind == "backbone" else ""
    arrays = {key: array for key, array in engine.averaged().items() if key.startswith(prefix)}
    guard.check(engine.step, {"weights": arrays})
    check_claim(store, output.writer)
    with temporary_folder("bundle") as folder:
        chosen = folder / "best.safetensors"
        last = files = weights_files(folder / "last", arrays)
        choice = selection.choose(engine.step, chosen) if selection else None
        if choice is not None and chosen.exists():
            files = weights_files(folder / "best", load_file(chosen))
            of_last = _with_notes(manifest, output, notes, choice.of_last)
            last_uri = publish_bundle(output.place / LAST, of_last, last).uri
            choice = choice.model_copy(update={"last": last_uri})
        manifest = _with_notes(manifest, output, notes, choice)
        uri = publish_bundle(output.place / "bundle", manifest, files).uri
    if choice is None or not choice.last:
        store.delete_tree(LAST, first=MANIFEST_NAME)
    result = TrainingResult(
        identity=output.identity,
        code_digest=output.code_digest,
        steps=engine.step,
        bundle=uri,
        seconds=round(sum(seconds for _, seconds in sessions), 2),
        resumed_at=[step for step, _ in sessions[1:]],
        warnings=tuple(warnings),
        anchor_recall=anchor_recall,
        choice=choice,
        stopped=stopped,
        compiled=engine.compilations.result,
    )
    store.write_bytes(RESULT_NAME, result.model_dump_json(indent=2).encode())
    store.delete_tree(SHARES)
    if selection is not None:
        selection.best.remove_unused()
    return uri


def weights_files(folder: Path, arrays: Mapping[str, AnyArray]) -> dict[str, Path]:
    """Write averaged weights, and the ranges of a quantization-aware training; return them by name in a bundle."""
    weights, ranges = split_ranges(arrays)
    folder.mkdir()
    save_file(weights, folder / WEIGHTS)
    if not ranges:
        return {WEIGHTS: folder / WEIGHTS}
    write_ranges(folder / RANGES, ranges)
    return {WEIGHTS: folder / WEIGHTS, RANGES: folder / RANGES}


def _with_notes(
    manifest: BundleManifest, output: Output, notes: dict[str, Any], choice: Choice | None
) -> BundleManifest:
    """Return a manifest with notes on the training, its extensions, and the choice of the weights in its metrics."""
    train = notes if choice is None else {**notes, "choice": choice.model_dump(mode="json")}
    extensions = extension_lines(output.identity)
    metrics = {
        **manifest.metrics,
        **({"train": train} if train else {}),
        **({EXTENDED: extensions} if extensions else {}),
    }
    return manifest.model_copy(update={"metrics": metrics})
