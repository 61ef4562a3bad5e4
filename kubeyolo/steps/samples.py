"""Images with their boxes for the reports: ground truth and detections side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kubeyolo.data.dataset import Split
from kubeyolo.data.manifest import DatasetManifest
from kubeyolo.evaluation.coco_eval import Detection
from kubeyolo.report.samples import Box, SampleImage

REPORT_SAMPLES = 12
SHOWN_SCORE = 0.25
"""Detections below this score are counted but not drawn."""


def chosen_images(split: Split, wanted: int = REPORT_SAMPLES) -> list[int]:
    """Return the positions of images spread evenly over a split, images with boxes if there are any."""
    counts = np.diff(split.index.box_start)
    images = np.flatnonzero(counts > 0)
    if not len(images):
        images = np.arange(len(split.index))
    if len(images) <= wanted:
        return [int(i) for i in images]
    return [int(images[round(position)]) for position in np.linspace(0, len(images) - 1, wanted)]


def truth_boxes(split: Split, i: int, classes: Sequence[str]) -> list[Box]:
    """Return the ground truth boxes of image ``i``."""
    index, rows = split.index, split.index.boxes_of(i)
    return [
        Box((float(x), float(y), float(x + w), float(y + h)), classes[int(number)], crowd=bool(crowd))
        for (x, y, w, h), number, crowd in zip(
            index.box_xywh[rows], index.box_class[rows], index.box_crowd[rows], strict=True
        )
    ]


def dataset_samples(split: Split, classes: Sequence[str]) -> list[SampleImage]:
    """Return images of a split with their ground truth."""
    return [
        SampleImage(split.read_image(i), truth_boxes(split, i, classes), split.index.file_name[i])
        for i in chosen_images(split)
    ]


def evaluation_samples(
    split: Split, manifest: DatasetManifest, detections: Sequence[Detection]
) -> list[tuple[SampleImage, SampleImage]]:
    """Return images of a split twice: with ground truth, and with the detections whose score is high enough to draw."""
    names = dict(zip(manifest.category_ids, manifest.classes, strict=True))
    chosen = chosen_images(split)
    position = {int(split.index.image_id[i]): i for i in chosen}
    boxes: dict[int, list[Box]] = {i: [] for i in chosen}
    for row in detections:
        if row["image_id"] in position and row["score"] >= SHOWN_SCORE:
            x, y, width, height = row["bbox"]
            box = Box((x, y, x + width, y + height), names[row["category_id"]], score=row["score"])
            boxes[position[row["image_id"]]].append(box)
    pairs = []
    for i in chosen:
        image, name = split.read_image(i), split.index.file_name[i]
        truth = SampleImage(image, truth_boxes(split, i, manifest.classes), f"{name}: ground truth")
        pairs.append((truth, SampleImage(image, boxes[i], f"{name}: detections")))
    return pairs
