"""Class-wise non-maximum suppression in numpy.

Only as many candidates are computed, sorted and compared as the result needs. A score is at most the objectness of its
box: the candidates above a score are among the boxes with at least this objectness, so they are found tier by tier,
best first. Boxes are compared only with boxes of the same class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from kubeyolo.arrays import BoolArray, Float32Array, Int64Array
from kubeyolo.config.schema import NmsKind

MAX_CANDIDATES = 30_000
"""Largest number of candidates of an image that are compared, best first."""

BLOCK = 512
"""Candidates that are compared with the kept boxes at once."""

FIRST_TIER = 512
"""Boxes whose candidates are computed first; each further tier has :data:`TIER_GROWTH` times as many."""

TIER_GROWTH = 4

_SPARSE = 8
"""Gathering a pair of boxes costs about as much as comparing this many pairs of a full matrix."""


class Candidates(NamedTuple):
    """Candidates of an image, best first: corners (k, 4), scores (k,), classes (k,)."""

    boxes: Float32Array
    scores: Float32Array
    classes: Int64Array

    def part(self, chosen: slice | BoolArray) -> Candidates:
        """Return some of the candidates, in the same order."""
        return Candidates(self.boxes[chosen], self.scores[chosen], self.classes[chosen])

    def followed_by(self, others: Candidates) -> Candidates:
        """Return these candidates and then the others."""
        return Candidates(
            np.concatenate([self.boxes, others.boxes]),
            np.concatenate([self.scores, others.scores]),
            np.concatenate([self.classes, others.classes]),
        )


def non_max_suppression(
    predictions: Sequence[Float32Array] | Float32Array,
    conf_threshold: float = 0.001,
    iou_threshold: float = 0.65,
    max_det: int = 300,
    multi_label: bool = True,
    kind: NmsKind = "greedy",
) -> list[Float32Array]:
    """Keep the best of boxes that overlap.

    A candidate's score is objectness · class score. Candidates are taken in descending order of score (ties in the
    order of boxes and classes); a candidate is dropped when its overlap with a kept box of the same class exceeds
    ``iou_threshold``. Classes are compared by number: no coordinates are shifted by class, which would round them.

    The overlap is IoU (``greedy``), or IoU − d²/c² (``diou``, https://arxiv.org/abs/1911.08287), with the distance d of
    the centres and the diagonal c of the smallest box around both: neighbours with centres far apart are both kept.

    Args:
        predictions: For each image (boxes, 5+nc) float32: centre x, centre y, width, height, objectness, class scores;
            class scores are at most 1.
        conf_threshold: Objectness and score must exceed this threshold; NaN never does.
        iou_threshold: In (0, 1].
        max_det: Largest number of boxes that an image may have.
        multi_label: Every class above the threshold becomes a candidate, not only the best class; no effect for nc = 1.
        kind: The overlap.

    Returns:
        For each image (k, 6) float32 rows x1, y1, x2, y2, score, class in descending order of score.
    """
    return [
        suppress(blocks(image, conf_threshold, multi_label), iou_threshold, max_det, kind == "diou")
        for image in predictions
    ]


def blocks(predictions: Float32Array, conf_threshold: float, multi_label: bool) -> Iterator[Candidates]:
    """Yield the candidates of an image above the threshold, best first, in blocks; see :data:`MAX_CANDIDATES`."""
    left = MAX_CANDIDATES
    for boxes, box, label, score in _tiers(predictions, conf_threshold, multi_label):
        for order in _best_first(score, left):
            left -= len(order)
            candidates = Candidates(corners(boxes[box[order], :4]), score[order], label[order])
            for start in range(0, len(order), BLOCK):
                yield candidates.part(slice(start, start + BLOCK))
        if left <= 0:
            return


def _tiers(
    predictions: Float32Array, conf_threshold: float, multi_label: bool
) -> Iterator[tuple[Float32Array, Int64Array, Int64Array, Float32Array]]:
    """Yield tiers of candidates, each with lower scores than the tier before: rows, and row, class and score of each.

    Within a tier the candidates are in the order of boxes and classes.
    """
    objectness = predictions[:, 4]
    rows = np.nonzero(objectness > conf_threshold)[0]
    objectness = objectness[rows]
    size, upper = FIRST_TIER, np.float32(np.inf)
    while True:
        is_last = size >= len(rows)
        if is_last:
            boxes = predictions[rows]
            lower = np.nextafter(np.float32(conf_threshold), np.float32(np.inf))
        else:
            lower = np.partition(objectness, len(rows) - size)[len(rows) - size]
            boxes = predictions[rows[objectness >= lower]]
        yield boxes, *_between(boxes, lower, upper, multi_label)
        if is_last:
            return
        size, upper = size * TIER_GROWTH, lower


def _between(
    boxes: Float32Array, lower: np.float32, upper: np.float32, multi_label: bool
) -> tuple[Int64Array, Int64Array, Float32Array]:
    """Return box, class and score of the candidates with a score in [lower, upper)."""
    scores = boxes[:, 5:] * boxes[:, 4:5]
    if multi_label and scores.shape[1] > 1:
        flat = scores.ravel()
        chosen = np.nonzero((flat >= lower) & (flat < upper))[0]
        box, label, score = chosen // scores.shape[1], chosen % scores.shape[1], flat[chosen]
    else:
        label = scores.argmax(axis=1) if len(scores) else np.zeros(0, np.int64)
        score = scores[np.arange(len(scores)), label]
        box = np.nonzero((score >= lower) & (score < upper))[0]
        label, score = label[box], score[box]
    return box, label, score


def _best_first(scores: Float32Array, most: int) -> Iterator[Int64Array]:
    """Yield the order of descending scores, ties in their own order, in parts: the best are sorted first."""
    numbers = np.arange(len(scores))
    size = 2 * BLOCK
    while len(numbers) and most > 0:
        if len(numbers) > 2 * size:
            limit = np.partition(scores, len(scores) - size)[len(scores) - size]
            above = scores >= limit
        else:
            above = np.ones(len(scores), bool)
        order = numbers[above][np.argsort(-scores[above], kind="stable")][:most]
        yield order
        numbers, scores = numbers[~above], scores[~above]
        most, size = most - len(order), size * 2


def corners(boxes: Float32Array) -> Float32Array:
    """Return (k, 4) x1, y1, x2, y2 of (k, 4) centre x, centre y, width, height."""
    half = boxes[:, 2:4] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def suppress(candidates: Iterator[Candidates], iou_threshold: float, max_det: int, distance: bool) -> Float32Array:
    """Greedy suppression of blocks of candidates, best first; rows as in :func:`non_max_suppression`.

    The blocks end with the ``max_det``-th kept candidate: the many candidates with tiny scores of a network that has
    hardly been trained are neither sorted nor compared with each other.
    """
    kept = Candidates(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    for block in candidates:
        _, covered = overlapping(kept, block, iou_threshold, distance)
        free = np.ones(len(block.scores), bool)
        free[covered] = False
        block = block.part(free)
        block = block.part(greedy(len(block.scores), *overlapping(block, block, iou_threshold, distance)))
        kept = kept.followed_by(block)
        if len(kept.scores) >= max_det:
            kept = kept.part(slice(max_det))
            break
    return np.concatenate([kept.boxes, kept.scores[:, None], kept.classes[:, None].astype(np.float32)], axis=1)


def greedy(count: int, first: Int64Array, second: Int64Array) -> BoolArray:
    """Return a mask of the sorted candidates that are kept, from the overlapping pairs, sorted by ``first``."""
    later = second > first
    first, second = first[later], second[later]
    alive = np.ones(count, bool)
    with_later, start = np.unique(first, return_index=True)
    ends = np.append(start[1:], len(first))[: len(start)]
    for number, begin, end in zip(with_later.tolist(), start.tolist(), ends.tolist(), strict=True):
        if alive[number]:
            alive[second[begin:end]] = False
    return alive


def overlapping(
    first: Candidates, second: Candidates, iou_threshold: float, distance: bool
) -> tuple[Int64Array, Int64Array]:
    """Return the numbers of pairs of one class that overlap by more than the threshold, sorted by the first number.

    The overlap is computed in float32; it is the same for a pair among few pairs as in a full matrix.
    """
    if not len(first.scores) or not len(second.scores):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    order = np.argsort(second.classes, kind="stable")
    classes = second.classes[order]
    low = np.searchsorted(classes, first.classes, "left")
    counts = np.searchsorted(classes, first.classes, "right") - low
    total = int(counts.sum())
    if total * _SPARSE > len(first.scores) * len(second.scores):
        above = _overlaps(first.boxes[:, None], second.boxes[None], distance) > iou_threshold
        above &= first.classes[:, None] == second.classes[None]
        left, right = np.nonzero(above)
        return left, right
    left = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    right = order[np.arange(total) - np.repeat(before - low, counts)]
    above = _overlaps(first.boxes[left], second.boxes[right], distance) > iou_threshold
    return left[above], right[above]


def _overlaps(first: Float32Array, second: Float32Array, distance: bool) -> Float32Array:
    """Return IoU, or with ``distance`` IoU − d²/c², of boxes (..., 4) that broadcast; NaN without any area."""
    ax1, ay1, ax2, ay2 = (first[..., i] for i in range(4))
    bx1, by1, bx2, by2 = (second[..., i] for i in range(4))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        width = np.minimum(ax2, bx2) - np.maximum(ax1, bx1)
        height = np.minimum(ay2, by2) - np.maximum(ay1, by1)
        shared = np.maximum(width, 0, out=width)
        shared *= np.maximum(height, 0, out=height)
        areas = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1)
        union = np.subtract(areas, shared, out=areas)
        iou: Float32Array = np.divide(shared, union, out=union)
        if distance:
            wide = np.maximum(ax2, bx2) - np.minimum(ax1, bx1)
            high = np.maximum(ay2, by2) - np.minimum(ay1, by1)
            right, down = ax1 + ax2 - bx1 - bx2, ay1 + ay2 - by1 - by2
            iou -= np.divide(right * right + down * down, np.float32(4) * (wide * wide + high * high), dtype=np.float32)
    return iou
