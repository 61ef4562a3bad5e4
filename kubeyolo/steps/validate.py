"""validate_dataset: a folder or a bucket of images and annotations becomes a checked, stored data set."""

from __future__ import annotations

from dataclasses import dataclass

from kubeyolo.steps.record import Stopwatch, write_record, write_report

STEP = "validate_dataset"


@dataclass(frozen=True, kw_only=True)
class ValidatedDataset:
    """A stored data set: its URI, its content digest, its counts by split, and the URIs of its record and report."""

    dataset: str
    digest: str
    name: str
    classes: tuple[str, ...]
    images: dict[str, int]
    boxes: dict[str, int]
    record: str
    report: str
    seconds: float


def validate_dataset(data: str, store: str) -> ValidatedDataset:
    """Check a data set and store it under a name made of its content.

    Args:
        data: Folder or store URI with ``annotations/<split>.json`` and ``<split>/`` for train and val.
        store: URI of the store that receives it, below ``datasets/``.

    Raises:
        InputError: The layout, an annotation or an image is wrong; the message names the file and the entry.
    """
    from kubeyolo.data.dataset import open_dataset
    from kubeyolo.data.shards import write_dataset
    from kubeyolo.report.dataset import dataset_report
    from kubeyolo.steps.samples import dataset_samples

    watch = Stopwatch()
    manifest, uri = write_dataset(data, store)
    dataset = open_dataset(uri)
    splits = {name: dataset.split(name) for name in manifest.splits}
    samples = dataset_samples(splits["train"], manifest.classes)
    html = dataset_report(manifest, {name: split.index for name, split in splits.items()}, samples)
    report = write_report(uri, html)
    images = {name: split.images for name, split in manifest.splits.items()}
    boxes = {name: split.boxes for name, split in manifest.splits.items()}
    metrics = {
        "name": manifest.name,
        "digest": manifest.digest,
        "classes": len(manifest.classes),
        **{f"{name}_images": count for name, count in images.items()},
        **{f"{name}_boxes": count for name, count in boxes.items()},
    }
    seconds = watch.seconds
    record = write_record(uri, STEP, seconds, {"dataset": uri, "digest": manifest.digest}, metrics, report)
    return ValidatedDataset(
        dataset=uri,
        digest=manifest.digest,
        name=manifest.name,
        classes=manifest.classes,
        images=images,
        boxes=boxes,
        record=record,
        report=report,
        seconds=seconds,
    )
