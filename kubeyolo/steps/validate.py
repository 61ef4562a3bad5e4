"""validate_dataset: a folder or a bucket of images and annotations becomes a checked, stored data set."""

from __future__ import annotations

import numpy as np

from kubeyolo.config.schema import Config
from kubeyolo.data import shards
from kubeyolo.data.digest import source_facts
from kubeyolo.data.index import SplitIndex
from kubeyolo.errors import WorkError
from kubeyolo.evaluation.coco_eval import crowded_images
from kubeyolo.evaluation.notes import crowded_splits_notes
from kubeyolo.steps.outcome import StepOutcome, Stopwatch
from kubeyolo.steps.samples import dataset_samples
from kubeyolo.storage.place import Place

STEP = "validate_dataset"


def validate_dataset(data: str, store: Place, config: Config, fingerprint: str = "") -> StepOutcome:
    """Check a data set and store it under a name made from its content.

    Args:
        data: Folder or store URI of annotated images, in a layout that docs/data.md lists.
        store: The store that receives it, below ``datasets/``.
        config: Its section ``data`` and its keys ``evaluate.split`` and ``evaluate.test_dev`` are used.
        fingerprint: Fingerprint that the data had when the run started; empty if unknown.

    Raises:
        InputError: The layout, an annotation or an image is wrong, or a finding is refused; the message names the file
            and the entry.
        WorkError: The data changed since the run started.
    """
    # Imported here, so that no other command waits for matplotlib.
    from kubeyolo.report.dataset import dataset_report

    watch = Stopwatch()
    # Images for test-dev have no annotations.
    evaluated = "val" if config.evaluate.test_dev else config.evaluate.split
    dataset = shards.write_dataset(data, store, reading=shards.Reading(config.data, evaluated))
    if fingerprint and source_facts(data, config.data).fingerprint != fingerprint:
        raise WorkError(f"{data}: the data changed after the run started; run it again")
    manifest = dataset.manifest
    splits = {name: dataset.split(name) for name in manifest.splits}
    evaluable = {name: split.index for name, split in splits.items() if name != "train"}
    warnings = crowded_splits_notes({name: _crowded_images(index) for name, index in evaluable.items()})
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
            **({"warnings": warnings} if warnings else {}),
        },
        html=dataset_report(manifest, {name: split.index for name, split in splits.items()}, samples, warnings),
    )


def _crowded_images(index: SplitIndex) -> int:
    """Return the number of images with more than 100 objects of a class."""
    regular = ~index.box_crowd
    return crowded_images(index.box_image()[regular], index.box_class[regular].astype(np.int64))
