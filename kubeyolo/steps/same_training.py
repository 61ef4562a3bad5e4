"""Whether the training that lies finished at an output is the one that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kubeyolo.bundle import WEIGHTS, BundleManifest, open_manifest
from kubeyolo.data.dataset import open_dataset
from kubeyolo.data.manifest import MANIFEST_NAME
from kubeyolo.errors import InputError
from kubeyolo.events import StepRecord
from kubeyolo.steps.record import Finished, finished
from kubeyolo.storage.base import NotFound
from kubeyolo.storage.claim import Claim, claimed
from kubeyolo.storage.integrity import sha256_bytes
from kubeyolo.storage.reference import split_reference
from kubeyolo.storage.uri import join_uri, open_store
from kubeyolo.training import finite
from kubeyolo.training.crops import ClassFolder
from kubeyolo.training.output import is_result_of, unfinished_extension
from kubeyolo.training.result import read_result
from kubeyolo.training.spec import TrainingSpec, training_identity


def finished_training(spec: TrainingSpec, step: str) -> Finished | None:
    """Return the record of this training where it lies whole at its output, or None where there is work to do.

    There is work to do too when the training there is a shorter one of the same settings, which is to be extended.

    Args:
        spec: The training run.
        step: ``train`` or ``pretrain_backbone``.

    Raises:
        InputError: The output holds the result of another training: of other settings, data or weights.
    """

    def is_same(record: StepRecord) -> bool:
        if record.outputs.get("backbone") == "":
            return not spec.config.pretrain.enabled
        try:
            saved = read_result(spec.output).identity
        except NotFound:
            return False
        now = identity_of(spec, open_manifest(join_uri(spec.output, "bundle")), saved)
        store = open_store(spec.output)
        if not is_result_of(saved, now, store.exists(finite.FILE_NAME), store.uri):
            return False
        if words := unfinished_extension(store, saved):
            print(words, flush=True)
        for line in record.metrics.get("warnings", ()):
            print(f"warning: {line}", flush=True)
        return True

    return finished(spec.output, step, is_same)


@contextmanager
def claimed_unless_finished(
    spec: TrainingSpec, step: str, begin: Callable[[], None] | None = None, writer: str = ""
) -> Iterator[Finished | Claim]:
    """Hold the output of a training for the block, and give the claim, or else the record of the finished training.

    Where it is finished nothing is claimed, as nothing is written: the store may be read-only.

    Args:
        spec: The training run.
        step: ``train`` or ``pretrain_backbone``.
        begin: Called once no other process works in the output, before anything is changed there.
        writer: Name of the job that trains, when it outlives this process and is taken up again.

    Raises:
        InputError: The output holds something else, or cannot be written.
    """
    begin = begin or (lambda: None)
    known = finished_training(spec, step)
    if known is not None:
        begin()
        yield known
        return
    with claimed(spec.output, writer) as claim:
        begin()
        yield finished_training(spec, step) or claim


def identity_of(
    spec: TrainingSpec, bundle: BundleManifest | None = None, saved: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return all that the weights of a training depend on, as its own processes find it.

    Args:
        spec: The training run.
        bundle: What a training has published, with ``saved``, its identity. Where its backbone is gone, or where images
            by class lie in an object store, of which there is no digest without a copy of them, their URI decides.
        saved: See ``bundle``.

    Raises:
        InputError: The data set or the backbone cannot be read.
    """
    saved = saved or {}
    if spec.task == "backbone":
        return training_identity(spec, _images_digest(spec, bundle, saved), "", spec.processes)
    dataset = split_reference(spec.dataset)[1] or open_dataset(spec.dataset, spec.cache).manifest.digest
    return training_identity(spec, dataset, _backbone_digest(spec, bundle, saved), spec.processes)


def _backbone_digest(spec: TrainingSpec, bundle: BundleManifest | None, saved: dict[str, Any]) -> str:
    if not spec.backbone:
        return ""
    try:
        return sha256_bytes(open_manifest(spec.backbone).files[WEIGHTS].sha256.encode())
    except InputError:
        if bundle is not None and bundle.parent == open_store(split_reference(spec.backbone)[0]).uri:
            return str(saved.get("backbone", ""))
        raise


def _images_digest(spec: TrainingSpec, bundle: BundleManifest | None, saved: dict[str, Any]) -> str:
    uri, digest = split_reference(spec.dataset)
    if digest:
        return digest
    store = open_store(uri)
    if store.exists(MANIFEST_NAME):
        return open_dataset(spec.dataset, spec.cache).manifest.digest
    folder = store.local_path()
    if folder is not None:
        return ClassFolder.open(folder).digest
    is_same = bundle is not None and bundle.dataset is not None and bundle.dataset.uri == store.uri
    return str(saved.get("dataset", "")) if is_same else store.uri
