"""The losses of YOLOv3 and YOLOv4, from their papers (https://arxiv.org/abs/1804.02767, 2004.10934).

All parts are sums over cells, divided by the batch size. Such a loss is some thousand times as large as a mean, and
published learning rates expect a further divisor. The MindSpore model zoo has 64 (YOLOv4) and 1024 (YOLOv3 for
quantization) in the loss scale of its optimizer, darknet has none. Here the divisor is an argument.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from mindspore import Tensor, ops
from mindspore import dtype as mstype
from mindspore.ops.primitive import constexpr

from kubeyolo.losses.anchor_loss import AnchorLoss, grid_shapes
from kubeyolo.losses.assign import Shapes
from kubeyolo.losses.darknet_assign import NO_THRESHOLD, claim_anchors, image_pixels
from kubeyolo.losses.iou import centred_iou
from kubeyolo.models.facts import Anchors

BoxLoss = Literal["squares", "ciou"]

YOLOV4_THRESHOLD = 0.213
"""Overlap of sizes above which an anchor is responsible in addition to the best anchor, in YOLOv4."""

_LARGEST_EXPONENT = 10.0
"""With it exp() stays finite, and a box 22,026 times as large as its anchor is far larger than any image."""

_FAR_BELOW = 1e30


class DarknetLoss(AnchorLoss):
    """Box, objectness and class loss over all levels at once, in static shapes.

    "squares" is YOLOv3: cross entropy of the centre within its cell, half the squared error of the logarithms of the
    sides. "ciou" is YOLOv4: 1 − CIoU. Both weigh a box by 2 − w·h, with its sides as fractions of the image.
    An anchor without a label is ignored in the objectness loss if its box overlaps a label of the image by more than
    ``ignore_threshold``. :mod:`kubeyolo.losses.darknet_assign` assigns the labels.

    Args:
        anchors: (level, anchor, 2) widths and heights in pixels.
        strides: Stride of each level in pixels, finest first.
        num_classes: Number of classes.
        scale_xy: Growth of the centre offset around the cell, for each level.
        box_loss: "squares" or "ciou".
        gains: Coefficients of box, objectness and class loss.
        anchor_threshold: Overlap of sizes above which an anchor is responsible in addition to the best anchor.
        ignore_threshold: IoU above which an anchor without a label is ignored in the objectness loss.
        label_smooth_factor: With factor f the class targets are 1 − f and f / (classes − 1).
        divisor: Divisor of the loss.
        processes: Number of training processes, by which the total is divided: the sum of the gradients of all
            processes is then the gradient of the mean over all of their images.
    """

    is_mean = True

    def __init__(
        self,
        anchors: Anchors,
        strides: tuple[int, ...],
        num_classes: int,
        scale_xy: tuple[float, ...],
        box_loss: BoxLoss,
        gains: tuple[float, float, float] = (1.0, 1.0, 1.0),
        anchor_threshold: float = NO_THRESHOLD,
        ignore_threshold: float = 0.7,
        label_smooth_factor: float = 0.0,
        divisor: float = 1.0,
        processes: int = 1,
    ) -> None:
        box, obj, cls = (gain / divisor for gain in gains)
        targets = (1 - label_smooth_factor, label_smooth_factor / max(num_classes - 1, 1))
        super().__init__(anchors, strides, num_classes, (box, obj, cls), targets)
        self.scale_xy = scale_xy
        self.processes = processes
        self.by_squares = box_loss == "squares"
        self.anchor_threshold = anchor_threshold
        self.ignore_threshold = ignore_threshold

    def loss_and_target(self, raws: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the loss, and return with it the objectness target of each row (level, image, anchor, y, x).

        The target is 1 for a responsible anchor, 0 for background, −1 for an ignored anchor.
        """
        shapes, batch = grid_shapes(raws), raws[0].shape[0]
        mask, rank, row, centre, size, anchor, label = claim_anchors(
            labels, self.anchors, self.strides, shapes, self.anchor_threshold
        )
        won, responsible = self._settle(mask, rank, row, shapes, batch)
        _, label_class, _, _, width, height = ops.unstack(labels, 1)
        label_class = ops.gather(label_class.astype(mstype.int32), label, 0)
        boxes, objectness, entropy = self.pick_candidates(raws, row, label_class)
        weight = won * (2 - ops.gather(width * height, label, 0))
        box = (self._box_errors(boxes, centre, size, anchor, won) * weight).sum() * self.box_gain / batch
        counted = ops.maximum(responsible, self._background(raws, labels, shapes, batch))
        obj = (self.cross_entropy(objectness, responsible) * counted).sum() * self.obj_gain / batch
        cls = (entropy * won).sum() * self.cls_gain / batch
        total = box + obj + cls
        if self.processes > 1:
            total = total / self.processes
        return total, ops.stack((box, obj, cls)), responsible + counted - 1

    def _settle(self, mask: Tensor, rank: Tensor, row: Tensor, shapes: Shapes, batch: int) -> tuple[Tensor, Tensor]:
        """Return which claims (K,) win, and which rows of all levels are responsible for a label, both as 0 and 1."""
        largest, row = self.largest_numbers(rank, mask, row, shapes, batch)
        won = ops.logical_and(mask, ops.gather(largest, row, 0) == rank)
        return won.astype(mstype.float32), (largest > 0).astype(mstype.float32)

    def _box_errors(self, raw_boxes: Tensor, centre: Tensor, size: Tensor, anchor: Tensor, won: Tensor) -> Tensor:
        """Return the error (K,) of each claim; the error of a claim that has not won is finite, but meaningless."""
        shift, exponent = ops.split(ops.transpose(raw_boxes, (1, 0)), 2, 0)
        # An unused label has no area: its logarithm and gradient are not finite, even when multiplied by zero.
        size = ops.where(won > 0, size, anchor)
        if self.by_squares:
            difference = exponent - ops.log(size / anchor)
            return (self.cross_entropy(shift, centre) + 0.5 * difference * difference).sum(0)
        scale = _claim_scales(self.scale_xy, raw_boxes.shape[0])
        centres = ops.sigmoid(shift) * scale - (scale - 1) * 0.5
        sides = ops.exp(ops.minimum(exponent, ops.full_like(exponent, _LARGEST_EXPONENT))) * anchor
        return 1 - centred_iou(centres, sides, centre, size)

    def _background(self, raws: tuple[Tensor, ...], labels: Tensor, shapes: Shapes, batch: int) -> Tensor:
        """Return 0 for rows whose box overlaps a label of its image by more than the threshold, else 1; no gradient.

        Works image by image, so that the largest array is (boxes of an image, labels).
        """
        low, high, area = self._boxes_of_images(raws, shapes, batch)
        columns = ops.transpose(labels, (1, 0))
        pixels = image_pixels(shapes, self.strides)
        sides, centres = columns[4:6] * pixels, columns[2:4] * pixels
        label_low, label_high = centres - sides * 0.5, centres + sides * 0.5
        threshold = self.ignore_threshold
        # IoU > t is shared·(1 + t) − t·area of the label > t·area of the box.
        # A large number excludes the labels of other images.
        own = columns[0].astype(mstype.int32).reshape(1, -1) == _images(batch)
        lost = ops.broadcast_to((sides[0] * sides[1] * threshold).reshape(1, -1), own.shape)
        lost = ops.unstack(ops.where(own, lost, ops.full_like(lost, _FAR_BELOW)), 0)
        kept: tuple[Tensor, ...] = ()
        for image in range(batch):
            shared = ops.relu(ops.minimum(high[0][image], label_high[0]) - ops.maximum(low[0][image], label_low[0]))
            shared *= ops.relu(ops.minimum(high[1][image], label_high[1]) - ops.maximum(low[1][image], label_low[1]))
            closest = ops.amax(shared * (1 + threshold) - lost[image], 1)
            kept += ((closest <= area[image] * threshold).astype(mstype.float32),)
        return self._by_levels(ops.stack(kept, 0), shapes, batch)

    def _boxes_of_images(
        self, raws: tuple[Tensor, ...], shapes: Shapes, batch: int
    ) -> tuple[tuple[tuple[Tensor, ...], ...], tuple[tuple[Tensor, ...], ...], tuple[Tensor, ...]]:
        """Return low and high corners (each x and y) and areas of all boxes in pixels, (boxes, 1) for each image."""
        parts: tuple[Tensor, ...] = ()
        for raw in raws:
            rows = raw.reshape(batch, -1, 5 + self.num_classes)
            parts += (ops.slice(rows, (0, 0, 0), (batch, rows.shape[1], 4)),)
        raw_boxes = ops.transpose(ops.stop_gradient(ops.concat(parts, 1)), (2, 0, 1))
        shift, exponent = ops.split(raw_boxes, 2, 0)
        cell, stride, scale, anchor = _cells_of_boxes(self.anchors, self.strides, self.scale_xy, shapes)
        centres = (ops.sigmoid(shift) * scale - (scale - 1) * 0.5 + cell) * stride
        sides = ops.exp(ops.minimum(exponent, ops.full_like(exponent, _LARGEST_EXPONENT))) * anchor
        low_x, low_y = ops.unstack((centres - sides * 0.5).expand_dims(3), 0)
        high_x, high_y = ops.unstack((centres + sides * 0.5).expand_dims(3), 0)
        width, height = ops.unstack(sides, 0)
        return (
            (ops.unstack(low_x, 0), ops.unstack(low_y, 0)),
            (ops.unstack(high_x, 0), ops.unstack(high_y, 0)),
            ops.unstack(width * height, 0),
        )

    def _by_levels(self, values: Tensor, shapes: Shapes, batch: int) -> Tensor:
        """Order values (image, level and box) as rows (level, image, box)."""
        parts: tuple[Tensor, ...] = ()
        start = 0
        for ny, nx in shapes:
            count = len(self.anchors[0]) * ny * nx
            parts += (ops.slice(values, (0, start), (batch, count)).reshape(-1),)
            start += count
        return ops.concat(parts, 0)


# The constants below are computed while a graph is compiled.


@constexpr
def _claim_scales(scale_xy: tuple[float, ...], claims: int) -> Tensor:
    return Tensor(np.repeat(np.asarray(scale_xy, np.float32), claims // len(scale_xy)))


@constexpr
def _images(batch: int) -> Tensor:
    return Tensor(np.arange(batch, dtype=np.int32).reshape(-1, 1))


@constexpr
def _cells_of_boxes(
    anchors: Anchors, strides: tuple[int, ...], scale_xy: tuple[float, ...], shapes: Shapes
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return cell (2, 1, R), stride (R,), scale (R,) and anchor in pixels (2, 1, R) of the boxes of an image."""
    cells, sides, counts = [], [], []
    for level, (ny, nx) in zip(anchors, shapes, strict=True):
        lines, columns = np.mgrid[:ny, :nx].reshape(2, -1)
        cells.append(np.tile(np.stack((columns, lines)), len(level)))
        sides.append(np.repeat(np.asarray(level).T, ny * nx, 1))
        counts.append(len(level) * ny * nx)
    return (
        Tensor(np.concatenate(cells, 1).astype(np.float32)[:, None]),
        Tensor(np.repeat(np.asarray(strides, np.float32), counts)),
        Tensor(np.repeat(np.asarray(scale_xy, np.float32), counts)),
        Tensor(np.concatenate(sides, 1).astype(np.float32)[:, None]),
    )
