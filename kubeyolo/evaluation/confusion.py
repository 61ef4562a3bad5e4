"""Which classes are taken for which: a confusion matrix of detections, with the background as a class of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from kubeyolo.arrays import Float64Array, Int64Array
from kubeyolo.data.index import SplitIndex
from kubeyolo.evaluation.coco_eval import Detection

BACKGROUND = "background"
MATCH_IOU = 0.5
MATCH_SCORE = 0.25


def confusion_matrix(
    index: SplitIndex, category_ids: Sequence[int], detections: Sequence[Detection], score: float = MATCH_SCORE
) -> Int64Array:
    """Return counts (classes + 1, classes + 1): rows are what is there, columns what was detected; last: background.

    Detections of at least ``score`` are matched with boxes of any class at an IoU of .5, the largest overlaps first,
    each box and each detection once. What is left is the background's: missed boxes in its column, detections of
    nothing in its row. Detections inside a crowd box are left out, as COCO does.
    """
    number = {category_id: i for i, category_id in enumerate(category_ids)}
    background = len(category_ids)
    matrix = np.zeros((background + 1, background + 1), np.int64)
    by_image: dict[int, list[Detection]] = defaultdict(list)
    for row in detections:
        if row["score"] >= score:
            by_image[row["image_id"]].append(row)
    for i, image_id in enumerate(index.image_id.tolist()):
        rows, found = index.boxes_of(i), by_image.get(image_id, [])
        crowd, truth = index.box_crowd[rows], index.box_xywh[rows]
        classes = index.box_class[rows][~crowd]
        boxes = np.array([row["bbox"] for row in found], np.float64).reshape(-1, 4)
        guesses = np.array([number[row["category_id"]] for row in found], np.int64)
        matched = match(truth[~crowd], boxes)
        inside = (overlap(truth[crowd], boxes) / np.maximum(area(boxes), 1e-9) >= MATCH_IOU).any(axis=0)
        for box, guess in matched:
            matrix[classes[box], guesses[guess]] += 1
        seen, used = {box for box, _ in matched}, {guess for _, guess in matched}
        for box in range(len(classes)):
            if box not in seen:
                matrix[classes[box], background] += 1
        for guess in range(len(guesses)):
            if guess not in used and not inside[guess]:
                matrix[background, guesses[guess]] += 1
    return matrix


def match(truth: Float64Array, boxes: Float64Array) -> list[tuple[int, int]]:
    """Return pairs of positions in truth (T, 4) and boxes (D, 4), both x, y, width, height, the best overlaps first."""
    shared = overlap(truth, boxes)
    iou = shared / np.maximum(area(truth)[:, None] + area(boxes)[None] - shared, 1e-9)
    pairs: list[tuple[int, int]] = []
    for flat in np.argsort(-iou, axis=None, kind="stable"):
        t, d = np.unravel_index(flat, iou.shape)
        if iou[t, d] < MATCH_IOU:
            break
        if all(t != other for other, _ in pairs) and all(d != other for _, other in pairs):
            pairs.append((int(t), int(d)))
    return pairs


def overlap(one: Float64Array, other: Float64Array) -> Float64Array:
    """Return the shared area (A, B) of boxes x, y, width, height in square pixels."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, :2] + one[:, None, 2:], other[None, :, :2] + other[None, :, 2:])
    sides: Float64Array = np.clip(high - low, 0, None)
    return sides[..., 0] * sides[..., 1]


def area(boxes: Float64Array) -> Float64Array:
    """Return the areas (A,) of boxes x, y, width, height."""
    return boxes[:, 2] * boxes[:, 3]
