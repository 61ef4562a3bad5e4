"""Images with their boxes for the reports: ground truth, and detections beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kubeyolo.report.samples import Box, SampleImage

if TYPE_CHECKING:
    from kubeyolo.data.dataset import Split

REPORT_SAMPLES = 12
SHOWN_SCORE = 0.25
"""Detections below this score are counted but not drawn."""


def spread(count: int, wanted: int = REPORT_SAMPLES) -> list[int]:
    """Return up to ``wanted`` positions spread evenly over ``count`` images, the same ones every time."""
    if count <= wanted:
        return list(range(count))
    return [round(position) for position in np.linspace(0, count - 1, wanted)]


def truth_boxes(split: Split, i: int, classes: Sequence[str]) -> list[Box]:
    """Return the ground truth boxes of image ``i``."""
    index, rows = split.index, split.index.boxes_of(i)
    xywh = index.box_xywh[rows]
    return [
        Box((float(x), float(y), float(x + w), float(y + h)), classes[int(number)], crowd=bool(crowd))
        for (x, y, w, h), number, crowd in zip(xywh, index.box_class[rows], index.box_crowd[rows], strict=True)
    ]


def detection_boxes(detections: NDArray[np.float32], classes: Sequence[str]) -> list[Box]:
    """Return boxes of detections (k, 6): x1, y1, x2, y2 in pixels, score, class; only those worth drawing."""
    return [
        Box((float(x1), float(y1), float(x2), float(y2)), classes[int(number)], score=float(score))
        for x1, y1, x2, y2, score, number in detections
        if score >= SHOWN_SCORE
    ]


def dataset_samples(split: Split, classes: Sequence[str]) -> list[SampleImage]:
    """Return images of a split with their ground truth; images with boxes come first."""
    counts = np.diff(split.index.box_start)
    with_boxes = np.flatnonzero(counts > 0).tolist() or list(range(len(split.index)))
    chosen = [with_boxes[position] for position in spread(len(with_boxes))]
    return [SampleImage(split.read_image(i), truth_boxes(split, i, classes), split.index.file_name[i]) for i in chosen]


def evaluation_samples(
    split: Split, classes: Sequence[str], detections: Mapping[int, NDArray[np.float32]]
) -> list[tuple[SampleImage, SampleImage]]:
    """Return pairs of ground truth and detections for the images that have detections at hand, by position."""
    pairs = []
    for i, found in sorted(detections.items()):
        image, name = split.read_image(i), split.index.file_name[i]
        truth = SampleImage(image, truth_boxes(split, i, classes), f"{name}: ground truth")
        pairs.append((truth, SampleImage(image, detection_boxes(found, classes), f"{name}: detections")))
    return pairs
