"""validate_dataset: a folder or a bucket of images and annotations becomes a checked, stored data set."""

from __future__ import annotations

from dataclasses import dataclass

from kubeyolo.errors import WorkError
from kubeyolo.steps.record import Stopwatch, finished, write_record, write_report

STEP = "validate_dataset"


@dataclass(frozen=True, kw_only=True)
class ValidatedDataset:
    """A stored data set: its reference, its content digest, and the reference of the step's record."""

    dataset: str
    digest: str
    record: str


def validate_dataset(data: str, store: str, output: str = "", fingerprint: str = "") -> ValidatedDataset:
    """Check a data set and store it under a name made of its content.

    Args:
        data: Folder or store URI with ``annotations/<split>.json`` and ``<split>/`` for train and val.
        store: URI of the store that receives it, below ``datasets/``.
        output: URI of the folder that receives report.html and metrics.json, with a name made of the fingerprint of the
            data: the same data is not read again. Empty takes the folder of the data set, and always reads.
        fingerprint: Fingerprint that the data had when the run began; empty when it is not known.

    Raises:
        InputError: The layout, an annotation or an image is wrong; the message names the file and the entry.
        WorkError: The data changed since the run began.
    """
    from kubeyolo.data.dataset import open_dataset
    from kubeyolo.data.digest import source_facts
    from kubeyolo.data.shards import write_dataset
    from kubeyolo.report.dataset import dataset_report
    from kubeyolo.steps.samples import dataset_samples

    watch = Stopwatch()
    known = finished(output, STEP) if output else None
    if known is not None:
        outputs = known.record.outputs
        return ValidatedDataset(dataset=outputs["dataset"], digest=outputs["digest"], record=known.reference)
    manifest, uri = write_dataset(data, store)
    if fingerprint and source_facts(data).fingerprint != fingerprint:
        raise WorkError(f"{data}: the data changed after the run began; run it again")
    dataset = open_dataset(uri)
    splits = {name: dataset.split(name) for name in manifest.splits}
    samples = dataset_samples(splits["train"], manifest.classes)
    html = dataset_report(manifest, {name: split.index for name, split in splits.items()}, samples)
    output = output or uri
    report = write_report(output, html)
    metrics = {
        "name": manifest.name,
        "digest": manifest.digest,
        "classes": len(manifest.classes),
        **{f"{name}_images": split.images for name, split in manifest.splits.items()},
        **{f"{name}_boxes": split.boxes for name, split in manifest.splits.items()},
    }
    outputs = {"dataset": dataset.reference, "digest": manifest.digest}
    record = write_record(output, STEP, watch.seconds, outputs, metrics, report)
    return ValidatedDataset(dataset=dataset.reference, digest=manifest.digest, record=record)
