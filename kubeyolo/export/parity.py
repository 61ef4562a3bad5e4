"""Differences between the outputs of an exported file and of the trained network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from kubeyolo.arrays import BoolArray, Float32Array
from kubeyolo.errors import WorkError
from kubeyolo.evaluation.limits import LARGEST_DISTANCE, LEAST_SCORE
from kubeyolo.evaluation.nms import non_max_suppression
from kubeyolo.evaluation.predictor import Thresholds

SCORE_MARGIN, IOU_MARGIN = 1e-3, 1e-3
"""Differences of scores and IoU that rounding may cause."""


class RawNetwork(Protocol):
    """Maps images to raw levels, like a predictor."""

    def raw(self, images: Float32Array) -> list[Float32Array]:
        """Map images (N, 3, H, W) in 0..1 to a raw (N, na, ny, nx, 5+nc) array for each level."""


@dataclass(frozen=True)
class LevelParity:
    """Difference between two raw outputs of a level.

    Attributes:
        stride: Stride of the level.
        max_difference: max |exported − trained| over all images.
        max_value: max |trained|.
    """

    stride: int
    max_difference: float
    max_value: float

    @property
    def relative(self) -> float:
        """The largest difference relative to the largest value of the level."""
        return self.max_difference / self.max_value if self.max_value else self.max_difference


def compare_levels(
    trained: RawNetwork,
    exported: RawNetwork,
    images: Float32Array,
    strides: Sequence[int],
    name: str = "the exported file",
) -> list[LevelParity]:
    """Run both networks on the same images and compare every level: max |a − b| / max |b|.

    Args:
        trained: The reference b.
        exported: The network a that is checked.
        images: (N, 3, H, W) in 0..1: real images, letterboxed.
        strides: Stride of each level, for messages.
        name: Name of the exported file, for messages.

    Raises:
        WorkError: A level differs in shape.
    """
    levels = []
    for stride, expected, got in zip(strides, trained.raw(images), exported.raw(images), strict=True):
        if expected.shape != got.shape:
            raise WorkError(
                f"{name}: level of stride {stride} has shape {got.shape}, in the trained network {expected.shape}"
            )
        levels.append(LevelParity(stride, float(np.abs(got - expected).max()), float(np.abs(expected).max())))
    return levels


@dataclass(frozen=True)
class DetectionParity:
    """How the detections of an exported network match those of the trained network.

    Attributes:
        detections: Detections of the trained network.
        unmatched: Detections of either network that have no partner.
        distance: Largest distance of the corners of partners, in pixels of the input.
        image: Number of the first image with a detection that has no partner; None if there is none.
    """

    detections: int = 0
    unmatched: int = 0
    distance: float = 0.0
    image: int | None = None


def compare_detections(
    reference: Sequence[Float32Array],
    rows: Sequence[Float32Array],
    thresholds: Thresholds,
    size: tuple[int, int],
) -> DetectionParity:
    """Match the detections of two networks on the same images one to one: same class, and close boxes.

    A detection without a partner counts only if rounding cannot explain it. The detections of the reference are
    computed again with thresholds that are :data:`SCORE_MARGIN` and :data:`IOU_MARGIN` larger and smaller: a missing
    detection counts if the reference has it in all cases, an additional detection if the reference has it in none.

    Args:
        reference: For each image (boxes, 5+nc) predictions of the trained network.
        rows: For each image (k, 6) detections of the exported network: x1, y1, x2, y2, score, class.
        thresholds: Limits on the boxes; detections below :data:`LEAST_SCORE` are not compared.
        size: Height and width of the input; boxes are clipped to it.
    """
    total = DetectionParity()
    thresholds = replace(thresholds, conf=max(thresholds.conf, LEAST_SCORE))
    for number, (predictions, given) in enumerate(zip(reference, rows, strict=True)):
        image = _compare_image(predictions, clipped(given[given[:, 4] > thresholds.conf], size), thresholds, size)
        total = DetectionParity(
            total.detections + image.detections,
            total.unmatched + image.unmatched,
            max(total.distance, image.distance),
            number if total.image is None and image.unmatched else total.image,
        )
    return total


def suppressed(predictions: Float32Array, thresholds: Thresholds) -> Float32Array:
    """Return the (k, 6) detections in (boxes, 5+nc) predictions of an image."""
    limits = (thresholds.conf, thresholds.iou, thresholds.max_det, thresholds.multi_label, thresholds.nms)
    return non_max_suppression([predictions], *limits)[0]


def clipped(rows: Float32Array, size: tuple[int, int]) -> Float32Array:
    """Return (k, 6) rows with corners clipped to the input: a network that has learned little finds huge boxes."""
    height, width = size
    return np.concatenate([np.clip(rows[:, :4], 0, (width, height, width, height)), rows[:, 4:]], axis=1)


def _compare_image(
    predictions: Float32Array, given: Float32Array, thresholds: Thresholds, size: tuple[int, int]
) -> DetectionParity:
    expected = clipped(suppressed(predictions, thresholds), size)
    of_expected, of_given, distance = _partners(expected, given)
    missing, added = expected[~of_expected], given[~of_given]
    if len(missing) or len(added):
        # With as many detections as allowed, rounding decides about the last of them.
        lowest = max((rows[-1, 4] for rows in (expected, given) if len(rows) == thresholds.max_det), default=0.0)
        missing, added = (rows[rows[:, 4] > lowest + SCORE_MARGIN] for rows in (missing, added))
        for score in (-SCORE_MARGIN, SCORE_MARGIN):
            for iou in (-IOU_MARGIN, 0.0, IOU_MARGIN):
                others = clipped(suppressed(predictions, _moved(thresholds, score, iou)), size)
                # A missing detection is an error if the reference finds it in all cases, an added one if in none.
                missing = missing[_partners(missing, others)[0]]
                added = added[~_partners(added, others)[0]]
    return DetectionParity(len(expected), len(missing) + len(added), distance)


def _moved(thresholds: Thresholds, score: float, iou: float) -> Thresholds:
    return replace(thresholds, conf=thresholds.conf + score, iou=min(thresholds.iou + iou, 1.0))


def _partners(rows: Float32Array, others: Float32Array) -> tuple[BoolArray, BoolArray, float]:
    """Give each row the closest free row of its class among the others.

    Returns:
        Which rows have a partner, which of the others have one, and the largest distance of partners.
    """
    paired, taken, largest = np.zeros(len(rows), bool), np.zeros(len(others), bool), 0.0
    for number, row in enumerate(rows if len(others) else ()):
        distances = np.abs(others[:, :4] - row[:4]).max(axis=1)
        distances[taken | (others[:, 5] != row[5])] = np.inf
        best = int(distances.argmin())
        if distances[best] <= LARGEST_DISTANCE:
            paired[number] = taken[best] = True
            largest = max(largest, float(distances[best]))
    return paired, taken, largest
