"""Class-wise non-maximum suppression in numpy."""

from __future__ import annotations

import numpy as np

from kubeyolo.arrays import BoolArray, Float32Array, Int64Array
from kubeyolo.data.overlaps import pairwise_iou

MAX_CANDIDATES = 30_000
"""Largest number of candidates of an image that are compared, best first."""

BLOCK = 256


def non_max_suppression(
    predictions: Float32Array,
    conf_threshold: float = 0.001,
    iou_threshold: float = 0.65,
    max_det: int = 300,
    multi_label: bool = True,
) -> list[Float32Array]:
    """Keep the best of boxes that overlap.

    A candidate's score is objectness · class score. Candidates are taken in descending order of score (ties in the
    order of boxes and classes); a candidate is dropped when its IoU with a kept box of the same class exceeds
    ``iou_threshold``. Classes are compared by number: no coordinates are shifted by class, which would round them.

    Args:
        predictions: (N, boxes, 5+nc) float32: centre x, centre y, width, height, objectness, class scores.
        conf_threshold: Objectness and score must exceed this threshold; NaN never does.
        iou_threshold: In (0, 1].
        max_det: Largest number of boxes that an image may have.
        multi_label: Every class above the threshold becomes a candidate, not only the best class; no effect for nc = 1.

    Returns:
        For each image (k, 6) float32 rows x1, y1, x2, y2, score, class in descending order of score.
    """
    return [suppress(*candidates(image, conf_threshold, multi_label), iou_threshold, max_det) for image in predictions]


def candidates(
    predictions: Float32Array, conf_threshold: float, multi_label: bool
) -> tuple[Float32Array, Float32Array, Int64Array]:
    """Return an image's corners (k, 4), scores (k,) and classes (k,) above the threshold, best first."""
    boxes = predictions[predictions[:, 4] > conf_threshold]
    scores = boxes[:, 5:] * boxes[:, 4:5]
    if multi_label and scores.shape[1] > 1:
        box, label = np.nonzero(scores > conf_threshold)
        score = scores[box, label]
    else:
        label = scores.argmax(axis=1) if len(scores) else np.zeros(0, np.int64)
        score = scores[np.arange(len(scores)), label]
        box = np.nonzero(score > conf_threshold)[0]
        label, score = label[box], score[box]
    order = np.argsort(-score, kind="stable")[:MAX_CANDIDATES]
    return corners(boxes[box[order], :4]), score[order], label[order].astype(np.int64)


def corners(boxes: Float32Array) -> Float32Array:
    """Return (k, 4) x1, y1, x2, y2 of (k, 4) centre x, centre y, width, height."""
    half = boxes[:, 2:4] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def suppress(
    boxes: Float32Array, scores: Float32Array, classes: Int64Array, iou_threshold: float, max_det: int
) -> Float32Array:
    """Greedy suppression of candidates sorted by descending score; rows as in :func:`non_max_suppression`.

    Candidates are taken a block at a time, and the loop ends with the ``max_det``-th kept candidate: the many
    candidates with tiny scores of a network that has hardly been trained are never compared with each other.
    """
    kept = np.zeros(0, np.int64)
    for start in range(0, len(boxes), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(boxes)))
        if len(kept):
            covered = overlapping(boxes[kept], classes[kept], boxes[block], classes[block], iou_threshold)
            block = block[~covered.any(axis=0)]
        if len(block):
            among = overlapping(boxes[block], classes[block], boxes[block], classes[block], iou_threshold)
            kept = np.concatenate([kept, block[greedy(among)]])
        if len(kept) >= max_det:
            kept = kept[:max_det]
            break
    return np.concatenate([boxes[kept], scores[kept, None], classes[kept, None].astype(np.float32)], axis=1)


def greedy(overlaps: BoolArray) -> BoolArray:
    """Return a mask of the k sorted candidates that are kept, from the (k, k) matrix of overlapping pairs."""
    later = np.triu(overlaps, 1)
    alive = np.ones(len(later), bool)
    for index in np.nonzero(later.any(axis=1))[0]:
        if alive[index]:
            alive &= ~later[index]
    return alive


def overlapping(
    first: Float32Array,
    first_classes: Int64Array,
    second: Float32Array,
    second_classes: Int64Array,
    iou_threshold: float,
) -> BoolArray:
    """Return the (k, m) matrix of pairs of one class with an IoU above the threshold, in float32 arithmetic."""
    above: BoolArray = pairwise_iou(first, second) > iou_threshold
    return above & (first_classes[:, None] == second_classes[None, :])
