"""The darknet losses once more, in plain loops and float64, to hold the compiled ones against.

Written from the same formulas, label by label and cell by cell. A row adds to the loss what depends on it alone, so
that a finite difference needs one row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = tuple[int, int, int, int, int]
"""Level, image, anchor, y, x."""


@dataclass
class DarknetReference:
    anchors: Any
    strides: Sequence[int]
    classes: int
    scale_xy: Sequence[float]
    squares: bool
    threshold: float = 2.0
    smooth: float = 0.0
    aspect_weights: dict[Row, float] = field(default_factory=dict)
    """CIoU's weight of the aspect term, which is a constant to the gradient: kept from the first call."""

    def claims(self, labels: NDArray[Any], shapes: Sequence[tuple[int, int]]) -> dict[Row, int]:
        """Return the label that each answering row belongs to."""
        height, width = (side * self.strides[0] for side in shapes[0])
        ranks: dict[Row, tuple[bool, int]] = {}
        for number, (image, _, x, y, w, h) in enumerate(labels.tolist()):
            if image < 0:
                continue
            overlaps = {}
            for level, anchors in enumerate(self.anchors):
                for index, (anchor_w, anchor_h) in enumerate(anchors):
                    shared = min(w * width, anchor_w) * min(h * height, anchor_h)
                    overlaps[level, index] = shared / (w * width * h * height + anchor_w * anchor_h - shared)
            for (level, index), overlap in overlaps.items():
                best = overlap >= max(overlaps.values()) - 1e-7
                if overlap > 0 and (best or overlap > self.threshold):
                    ny, nx = shapes[level]
                    row = (level, int(image), index, min(int(y * ny), ny - 1), min(int(x * nx), nx - 1))
                    ranks[row] = max(ranks.get(row, (False, -1)), (best, number))
        return {row: number for row, (_, number) in ranks.items()}

    def parts(self, raws: Sequence[NDArray[Any]], labels: NDArray[Any]) -> NDArray[np.float64]:
        """Return the sums over cells of box, objectness and class loss, over the batch size."""
        shapes = [(raw.shape[2], raw.shape[3]) for raw in raws]
        claims, total = self.claims(labels, shapes), np.zeros(3)
        for level, raw in enumerate(raws):
            for place in np.ndindex(raw.shape[:-1]):
                row = (level, *place)
                total += self.row_parts(row, raw[place].astype(np.float64), claims.get(row), labels, shapes)
        return total / len(raws[0])

    def row_parts(
        self, row: Row, raw: NDArray[Any], number: int | None, labels: NDArray[Any], shapes: Any
    ) -> NDArray[np.float64]:
        """Return what one row adds to box, objectness and class loss; ``number`` is the label it answers for."""
        if number is None:
            return np.asarray([0, 0 if self.ignored(row, raw, labels, shapes) else entropy(raw[4], 0), 0])
        _, label_class, _, _, w, h = labels[number].tolist()
        negative, cls = self.smooth / max(self.classes - 1, 1), 0.0
        for index in range(self.classes):
            cls += entropy(raw[5 + index], 1 - self.smooth if index == label_class else negative)
        return np.asarray([self.box_error(row, raw, labels[number], shapes) * (2 - w * h), entropy(raw[4], 1), cls])

    def box_of(self, row: Row, raw: NDArray[Any]) -> tuple[float, float, float, float]:
        """Return centre, width and height in pixels."""
        level, _, anchor, y, x = row
        scale, stride = self.scale_xy[level], self.strides[level]
        centre = [(scale * sigmoid(t) - (scale - 1) / 2 + cell) * stride for t, cell in zip(raw, (x, y), strict=False)]
        width, height = self.anchors[level][anchor]
        return centre[0], centre[1], math.exp(raw[2]) * width, math.exp(raw[3]) * height

    def box_error(self, row: Row, raw: NDArray[Any], label: NDArray[Any], shapes: Any) -> float:
        x, y, w, h = pixels(label, shapes, self.strides)
        if not self.squares:
            return 1 - self.ciou(row, self.box_of(row, raw), (x, y, w, h))
        level, _, anchor, line, column = row
        stride, (anchor_w, anchor_h) = self.strides[level], self.anchors[level][anchor]
        error = entropy(raw[0], x / stride - column) + entropy(raw[1], y / stride - line)
        return error + ((raw[2] - math.log(w / anchor_w)) ** 2 + (raw[3] - math.log(h / anchor_h)) ** 2) / 2

    def ciou(self, row: Row, a: Any, b: Any) -> float:
        overlap = iou(a, b)
        hull = [
            max(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2) - min(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2)
            for i in (0, 1)
        ]
        distance = ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) / (hull[0] ** 2 + hull[1] ** 2)
        aspect = 4 / math.pi**2 * (math.atan(b[2] / b[3]) - math.atan(a[2] / a[3])) ** 2
        weight = self.aspect_weights.setdefault(row, aspect / (1 - overlap + aspect))
        return overlap - distance - weight * aspect

    def ignored(self, row: Row, raw: NDArray[Any], labels: NDArray[Any], shapes: Any) -> bool:
        box = self.box_of(row, raw)
        own = [label for label in labels if int(label[0]) == row[1]]
        return any(iou(box, pixels(label, shapes, self.strides)) > 0.7 for label in own)

    def gradient(
        self, raws: Sequence[NDArray[Any]], labels: NDArray[Any], row: Row, output: int
    ) -> NDArray[np.float64]:
        """Return the derivative of the parts by one raw number, as a central difference of what its row adds."""
        shapes = [(raw.shape[2], raw.shape[3]) for raw in raws]
        number, raw, step = self.claims(labels, shapes).get(row), raws[row[0]][row[1:]].astype(np.float64), 1e-5
        self.row_parts(row, raw, number, labels, shapes)
        move = step * np.eye(1, len(raw), output)[0]
        low, high = (self.row_parts(row, raw + sign * move, number, labels, shapes) for sign in (-1, 1))
        return (high - low) / (2 * step) / len(raws[0])


def pixels(label: NDArray[Any], shapes: Any, strides: Sequence[int]) -> tuple[float, float, float, float]:
    height, width = (side * strides[0] for side in shapes[0])
    _, _, x, y, w, h = label.tolist()
    return x * width, y * height, w * width, h * height


def iou(a: Any, b: Any) -> float:
    shared = 1.0
    for i in (0, 1):
        shared *= max(min(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2) - max(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2), 0)
    union = a[2] * a[3] + b[2] * b[3] - shared
    return shared / union if union > 0 else 0.0


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def entropy(logit: float, target: float) -> float:
    return float(np.logaddexp(0, logit) - target * logit)
