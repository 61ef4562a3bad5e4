"""validate_dataset: a folder or a bucket of images and annotations becomes a checked, stored data set."""

from __future__ import annotations

from dataclasses import dataclass

from kubeyolo.config.schema import Config
from kubeyolo.errors import WorkError
from kubeyolo.steps.record import Stopwatch, finished, write_record, write_report

STEP = "validate_dataset"


@dataclass(frozen=True, kw_only=True)
class ValidatedDataset:
    """A stored data set: its reference, its content digest, and the reference of the step's record."""

    dataset: str
    digest: str
    record: str


def validate_dataset(
    data: str, store: str, output: str = "", fingerprint: str = "", config: Config | None = None
) -> ValidatedDataset:
    """Check a data set and store it under a name made of its content.

    Args:
        data: Folder or store URI of annotated images, in a layout that docs/data.md lists.
        store: URI of the store that receives it, below ``datasets/``.
        output: URI of the folder that receives report.html and metrics.json, with a name made of the fingerprint of the
            data: the same data is not read again. Empty takes the folder of the data set, and always reads.
        fingerprint: Fingerprint that the data had when the run began; empty when it is not known.
        config: Its section ``data`` and the split that is evaluated count; None takes the schema's defaults.

    Raises:
        InputError: The layout, an annotation or an image is wrong, or a finding is refused; the message names the file
            and the entry.
        WorkError: The data changed since the run began.
    """
    from kubeyolo.data.dataset import open_dataset
    from kubeyolo.data.digest import source_facts
    from kubeyolo.data.shards import Reading, write_dataset
    from kubeyolo.report.dataset import dataset_report
    from kubeyolo.steps.samples import dataset_samples

    watch = Stopwatch()
    config = config or Config()
    known = finished(output, STEP) if output else None
    if known is not None:
        outputs = known.record.outputs
        return ValidatedDataset(dataset=outputs["dataset"], digest=outputs["digest"], record=known.reference)
    manifest, uri = write_dataset(data, store, reading=Reading(config.data, config.evaluate.split))
    if fingerprint and source_facts(data, config.data).fingerprint != fingerprint:
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
        "layout": manifest.layout,
        "classes": len(manifest.classes),
        **{f"{name}_images": split.images for name, split in manifest.splits.items()},
        **{f"{name}_boxes": split.boxes for name, split in manifest.splits.items()},
        "findings_count": len(manifest.findings),
        "findings": [finding.facts() for finding in manifest.findings],
    }
    outputs = {"dataset": dataset.reference, "digest": manifest.digest}
    record = write_record(output, STEP, watch.seconds, outputs, metrics, report)
    return ValidatedDataset(dataset=dataset.reference, digest=manifest.digest, record=record)
