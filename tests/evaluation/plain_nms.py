"""Non-maximum suppression of one candidate at a time, in float32, to compare with."""

from __future__ import annotations

import numpy as np

from kubeyolo.arrays import Float32Array

FLOAT = np.float32


def plain_nms(
    predictions: Float32Array,
    conf: float,
    iou: float,
    multi_label: bool = True,
    kind: str = "greedy",
    candidates: int = 30_000,
) -> Float32Array:
    """Return all kept rows (k, 6) x1, y1, x2, y2, score, class of an image (boxes, 5+nc), best first."""
    rows = []
    for cx, cy, width, height, objectness, *scores in predictions:
        products = [objectness * score for score in scores]
        labels = range(len(products)) if multi_label else [int(np.argmax(products))]
        corners = (cx - width / FLOAT(2), cy - height / FLOAT(2), cx + width / FLOAT(2), cy + height / FLOAT(2))
        rows += [
            (*corners, products[label], FLOAT(label))
            for label in labels
            if objectness > FLOAT(conf) and products[label] > FLOAT(conf)
        ]
    rows.sort(key=lambda row: -row[4])  # sorting is stable
    kept: dict[float, list[np.ndarray]] = {}
    result = []
    for row in np.array(rows, FLOAT).reshape(-1, 6)[:candidates]:
        others = kept.setdefault(float(row[5]), [])
        if not others or not (overlaps(np.array(others), row[:4], kind) > FLOAT(iou)).any():
            others.append(row[:4])
            result.append(row)
    return np.array(result, FLOAT).reshape(-1, 6)


def overlaps(boxes: Float32Array, box: Float32Array, kind: str) -> Float32Array:
    """Return IoU, or IoU - d²/c², of boxes (k, 4) with a box (4,)."""
    sides = np.maximum(np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2]), FLOAT(0))
    shared = sides[:, 0] * sides[:, 1]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    result = shared / (area + (box[2] - box[0]) * (box[3] - box[1]) - shared)
    if kind == "diou":
        around = np.maximum(boxes[:, 2:], box[2:]) - np.minimum(boxes[:, :2], box[:2])
        apart = boxes[:, :2] + boxes[:, 2:] - box[:2] - box[2:]
        result = result - np.square(apart).sum(1) / (FLOAT(4) * np.square(around).sum(1))
    return result
