"""The data set that a person gives: stored already, or annotated images that are validated and stored first."""

from __future__ import annotations

import json

from kubeyolo.data.dataset import Dataset, open_dataset
from kubeyolo.data.manifest import MANIFEST_NAME
from kubeyolo.errors import InputError, suggest
from kubeyolo.formats import counted
from kubeyolo.steps import facade
from kubeyolo.steps.configure import check_store_apart, look_at_data
from kubeyolo.steps.facade import StepCall
from kubeyolo.storage.base import NotFound
from kubeyolo.storage.location import FileLocation
from kubeyolo.storage.place import Place


def given_dataset(call: StepCall, data: Place) -> Dataset:
    """Return the stored data set of a folder or a bucket; images that are not stored yet are validated and stored.

    The validation is that of a run: its result is found again as long as no file of the data changes.

    Args:
        call: The store, and the configuration: its section ``data`` and its key ``evaluate.split`` are used.
        data: A stored data set, or images with annotations.

    Raises:
        InputError: There is no data set, it is refused, or it has no split of the name ``evaluate.split``.
    """
    if is_stored(data):
        dataset, split = open_dataset(data), call.config.evaluate.split
        if split not in dataset.manifest.splits:
            raise InputError(
                f"evaluate.split: {dataset.uri} has no split {split!r}{suggest(split, dataset.manifest.splits)}"
            )
        return dataset
    check_store_apart(call.store.uri, data.uri)
    source, _ = look_at_data(data.uri, call.config, trains=False)
    stored = facade.validate_dataset(call, data.uri, source.fingerprint)
    dataset, findings = call.dataset(stored.record.outputs["dataset"]), stored.record.metrics["findings_count"]
    about = f"{counted(findings, 'kind')} of findings, see {stored.record.report}" if findings else "no findings"
    print(f"{data.uri} is stored as {dataset.uri}: {about}", flush=True)
    return dataset


def is_stored(data: Place) -> bool:
    """Tell whether a place has a stored data set; other programs name their annotations ``dataset.json``, too."""
    if isinstance(data.location, FileLocation) and data.location.path.is_file():
        return False
    try:
        document = json.loads(data.store.read_bytes(MANIFEST_NAME))
    except (NotFound, ValueError):
        return False
    return isinstance(document, dict) and {"schema_version", "digest"} <= document.keys()
