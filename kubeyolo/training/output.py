"""The output folder of a training run: when it is complete, how it is cleared and published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from safetensors.numpy import save_file

from kubeyolo.bundle import MANIFEST_NAME, WEIGHTS, BundleManifest, open_bundle, publish_bundle
from kubeyolo.errors import InputError
from kubeyolo.storage.base import Store
from kubeyolo.storage.workspace import temporary_folder
from kubeyolo.training import history
from kubeyolo.training.checkpoints import remove_checkpoints
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


def publish_weights(
    store: Store,
    engine: Engine,
    sessions: list[tuple[int, float]],
    manifest: BundleManifest,
    identity: dict[str, Any],
    spec: TrainingSpec,
    prefix: str = "",
    warnings: Sequence[str] = (),
    anchor_recall: float | None = None,
) -> str:
    """Publish the averaged weights as a bundle, mark the run as complete, and return the URI of the bundle.

    Only weights whose names begin with ``prefix`` are published; ``sessions`` are those of the loop;
    ``warnings`` and ``anchor_recall`` go into the result.
    """
    with temporary_folder("bundle") as folder:
        path = folder / WEIGHTS
        save_file({key: array for key, array in engine.averaged().items() if key.startswith(prefix)}, path)
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
