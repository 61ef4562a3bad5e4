"""The confusion matrix of detections, with the background as an additional class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from kubeyolo.arrays import Float64Array, Int64Array
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.overlaps import areas, corners, pairwise_iou, shared_areas
from kubeyolo.evaluation.coco_eval import Detection

BACKGROUND = "background"
MATCH_IOU = 0.5
MATCH_SCORE = 0.25


def confusion_matrix(index: SplitIndex, category_ids: Sequence[int], detections: Sequence[Detection]) -> Int64Array:
    """Return counts (classes + 1, classes + 1): annotated class in rows, detected class in columns, background last.

    Detections with a score of .25 or more are matched with boxes of any class at an IoU of .5, the largest overlaps
    first, each box and each detection once. A box without a match is counted in the column of the background, a
    detection without a match in the row of the background. Detections inside a crowd box are left out, as in COCO's
    evaluation.
    """
    number = {category_id: i for i, category_id in enumerate(category_ids)}
    background = len(category_ids)
    matrix = np.zeros((background + 1, background + 1), np.int64)
    by_image: dict[int, list[Detection]] = defaultdict(list)
    for row in detections:
        if row["score"] >= MATCH_SCORE:
            by_image[row["image_id"]].append(row)
    for i, image_id in enumerate(index.image_id.tolist()):
        rows, detected = index.boxes_of(i), by_image.get(image_id, [])
        crowd, truth = index.box_crowd[rows], corners(index.box_xywh[rows])
        classes = index.box_class[rows][~crowd]
        boxes = corners(np.array([row["bbox"] for row in detected], np.float64).reshape(-1, 4))
        guesses = np.array([number[row["category_id"]] for row in detected], np.int64)
        matched = match(truth[~crowd], boxes)
        inside = (shared_areas(truth[crowd], boxes) / np.maximum(areas(boxes), 1e-9) >= MATCH_IOU).any(axis=0)
        for box, guess in matched:
            matrix[classes[box], guesses[guess]] += 1
        missed = np.delete(classes, [box for box, _ in matched])
        wrong = np.delete(guesses, [guess for _, guess in matched] + np.flatnonzero(inside).tolist())
        matrix[:, background] += np.bincount(missed, minlength=background + 1)
        matrix[background] += np.bincount(wrong, minlength=background + 1)
    return matrix


def match(truth: Float64Array, boxes: Float64Array) -> list[tuple[int, int]]:
    """Return pairs of indices into truth (T, 4) and boxes (D, 4), both corners, the largest overlaps first."""
    iou = np.nan_to_num(pairwise_iou(truth, boxes))
    pairs: list[tuple[int, int]] = []
    for flat in np.argsort(-iou, axis=None, kind="stable"):
        t, d = np.unravel_index(flat, iou.shape)
        if iou[t, d] < MATCH_IOU:
            break
        if all(t != other for other, _ in pairs) and all(d != other for _, other in pairs):
            pairs.append((int(t), int(d)))
    return pairs
