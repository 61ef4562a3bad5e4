"""validate_dataset: a folder or a bucket of images and annotations becomes a checked, stored data set."""

from __future__ import annotations

from kubeyolo.config.schema import Config
from kubeyolo.data import shards
from kubeyolo.data.digest import source_facts
from kubeyolo.errors import WorkError
from kubeyolo.steps.outcome import StepOutcome, Stopwatch
from kubeyolo.steps.samples import dataset_samples
from kubeyolo.storage.place import Place

STEP = "validate_dataset"


def validate_dataset(data: str, store: Place, config: Config, fingerprint: str = "") -> StepOutcome:
    """Check a data set and store it under a name made from its content.

    Args:
        data: Folder or store URI of annotated images, in a layout that docs/data.md lists.
        store: The store that receives it, below ``datasets/``.
        config: Its section ``data`` and its key ``evaluate.split`` are used.
        fingerprint: Fingerprint that the data had when the run started; empty if unknown.

    Raises:
        InputError: The layout, an annotation or an image is wrong, or a finding is refused; the message names the file
            and the entry.
        WorkError: The data changed since the run started.
    """
    # Imported here, so that no other command waits for matplotlib.
    from kubeyolo.report.dataset import dataset_report

    watch = Stopwatch()
    dataset = shards.write_dataset(data, store, reading=shards.Reading(config.data, config.evaluate.split))
    if fingerprint and source_facts(data, config.data).fingerprint != fingerprint:
        raise WorkError(f"{data}: the data changed after the run started; run it again")
    manifest = dataset.manifest
    splits = {name: dataset.split(name) for name in manifest.splits}
    samples = dataset_samples(splits["train"], manifest.classes)
    return StepOutcome(
        step=STEP,
        seconds=watch.seconds,
        outputs={"dataset": dataset, "digest": dataset.digest},
        metrics={
            "name": manifest.name,
            "digest": dataset.digest,
            "layout": manifest.layout,
            "classes": len(manifest.classes),
            **{f"{name}_images": split.images for name, split in manifest.splits.items()},
            **{f"{name}_boxes": split.boxes for name, split in manifest.splits.items()},
            "findings_count": len(manifest.findings),
            "findings": [finding.facts() for finding in manifest.findings],
        },
        html=dataset_report(manifest, {name: split.index for name, split in splits.items()}, samples),
    )
