"""Decides whether the finished training in an output is the requested training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kubeyolo.bundle import BundleManifest, read_bundle
from kubeyolo.data.class_images import ClassFolder
from kubeyolo.data.dataset import open_dataset
from kubeyolo.data.manifest import MANIFEST_NAME
from kubeyolo.errors import InputError
from kubeyolo.events import StepRecord
from kubeyolo.steps.outcome import StoredOutcome, finished
from kubeyolo.storage.base import NotFound
from kubeyolo.storage.claim import Claim, claimed
from kubeyolo.storage.place import Place
from kubeyolo.training import finite
from kubeyolo.training.output import is_result_of, unfinished_extension
from kubeyolo.training.result import read_result
from kubeyolo.training.spec import TrainingSpec, training_identity
from kubeyolo.training.start import backbone_digest, weights_digest


def finished_training(spec: TrainingSpec, output: Place, step: str) -> StoredOutcome | None:
    """Return the stored outcome if this training is complete in its output, or None if the step must run.

    If the output has a shorter training with the same settings, the step must run: it extends that training.

    Args:
        spec: The training run.
        output: Its output.
        step: ``train`` or ``pretrain_backbone``.

    Raises:
        InputError: The output holds the result of a training with different settings, data or weights.
    """

    def is_same(record: StepRecord) -> bool:
        if record.outputs.get("backbone") == "":
            return not spec.config.pretrain.enabled
        try:
            saved = read_result(output.store).identity
        except NotFound:
            return False
        now = identity_of(spec, output, read_bundle(output / "bundle").manifest, saved)
        store = output.store
        if not is_result_of(saved, now, store.exists(finite.FILE_NAME), store.uri):
            return False
        if words := unfinished_extension(store, saved):
            print(words, flush=True)
        for line in record.metrics.get("warnings", ()):
            print(f"warning: {line}", flush=True)
        return True

    return finished(output, step, is_same)


@contextmanager
def claimed_unless_finished(
    spec: TrainingSpec, output: Place, step: str, begin: Callable[[], None], writer: str = ""
) -> Iterator[StoredOutcome | Claim]:
    """Claim the output of a training and yield the claim, or yield the outcome if the training is finished.

    The output of a finished training is not claimed, since nothing is written: the store may be read-only.

    Args:
        spec: The training run.
        output: Its output.
        step: ``train`` or ``pretrain_backbone``.
        begin: Called once no other process works in the output, before anything is changed there.
        writer: Name of the job that trains, if the job outlives this process and a later process adopts it.

    Raises:
        InputError: The output has different content, or cannot be written.
    """
    outcome = finished_training(spec, output, step)
    if outcome is not None:
        begin()
        yield outcome
        return
    with claimed(output, writer) as claim:
        begin()
        yield finished_training(spec, output, step) or claim


def identity_of(
    spec: TrainingSpec, output: Place, bundle: BundleManifest | None = None, saved: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return everything that the weights of a training depend on, as the training process computes it.

    Args:
        spec: The training run.
        output: Its output.
        bundle: The bundle that a finished training has published. If the bundle that it started from was deleted, or
            if images by class are in an object store, which has no digest of them, the URI is compared instead.
        saved: The identity of this finished training.

    Raises:
        InputError: The data set, the backbone or the detector to start from cannot be read.
    """
    saved, data = saved or {}, output.at(spec.dataset)
    if spec.task == "backbone":
        return training_identity(spec, _images_digest(spec, data, bundle, saved), "", spec.processes)
    dataset = data.digest or open_dataset(data, spec.cache).digest
    if spec.weights:
        weights = _digest_of(output.at(spec.weights), weights_digest, bundle, saved.get("weights"))
        return training_identity(spec, dataset, "", spec.processes, weights)
    backbone = spec.backbone and _digest_of(output.at(spec.backbone), backbone_digest, bundle, saved.get("backbone"))
    return training_identity(spec, dataset, backbone or "", spec.processes)


def _digest_of(start: Place, digest: Callable[[BundleManifest], str], bundle: BundleManifest | None, saved: Any) -> str:
    """Return the digest of the bundle that a training starts from, or the saved digest if that bundle was deleted."""
    try:
        return digest(read_bundle(start).manifest)
    except InputError:
        if bundle is not None and bundle.parent == start.uri:
            return str(saved or "")
        raise


def _images_digest(spec: TrainingSpec, data: Place, bundle: BundleManifest | None, saved: dict[str, Any]) -> str:
    if data.digest:
        return data.digest
    if data.store.exists(MANIFEST_NAME):
        return open_dataset(data, spec.cache).digest
    folder = data.store.local_path()
    if folder is not None:
        return ClassFolder.open(folder).digest
    is_same = bundle is not None and bundle.dataset is not None and bundle.dataset.uri == data.uri
    return str(saved.get("dataset", "")) if is_same else data.uri
