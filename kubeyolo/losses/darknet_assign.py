"""Label assignment of the darknet family, in static shapes: which cell and anchors are responsible for a label.

Labels and anchors are compared by their sizes alone, both centred on one point. The anchor with the largest overlap is
responsible for the label, in the cell of the label's centre; YOLOv4 adds every anchor above a threshold.

When several labels claim the same anchor of a cell, one label wins the anchor. A label for which it is the best anchor
wins over a label that only passes the threshold. Among equal labels, the label in the later row wins.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, ops
from mindspore import dtype as mstype
from mindspore.ops.primitive import constexpr

from kubeyolo.losses.assign import (
    Shapes,
    anchors_in_cells,
    cell_counts,
    grid_sides,
    rows_of_anchors,
    rows_per_image,
    rows_per_line,
)
from kubeyolo.models.facts import Anchors

NO_THRESHOLD = 2.0
"""A threshold that no overlap passes: only the best anchor is responsible."""

Claims = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def claim_anchors(
    labels: Tensor, anchors: Anchors, strides: tuple[int, ...], shapes: Shapes, threshold: float
) -> Claims:
    """Compare every label with every anchor of every level.

    Args:
        labels: (T, 6) image, class, centre x, centre y, width, height; boxes as fractions of the image; unused rows
            have image -1.
        anchors: (level, anchor, 2) widths and heights in pixels.
        strides: Stride of each level in pixels.
        shapes: (ny, nx) of each level.
        threshold: Overlap above which an anchor is responsible in addition to the best anchor.

    Returns:
        The claims, flattened from (level, anchor, label) to K:
        mask (K,) bool, whether the label claims the anchor; a label without area claims no anchor. If two levels have
        the same anchor, it is the best anchor in both;
        rank (K,) int32, larger than zero; the largest rank wins a row;
        row (K,) int32, the row in the predictions of its level (image, anchor, y, x); a masked claim has a row too;
        centre (2, K) of the label from the corner of the cell, in cells;
        size (2, K) of the label in cells;
        anchor (2, K), its width and height in cells;
        label (K,) int32, the row of the label.
    """
    columns = ops.transpose(labels, (1, 0))
    image = columns[0].astype(mstype.int32)
    count, per_level = labels.shape[0], len(anchors[0])
    grid, cells = grid_sides(shapes, 2), cell_counts(shapes, 2)
    centre = columns[2:4].reshape(2, 1, 1, -1) * cells
    size = columns[4:6].reshape(2, 1, 1, -1) * cells
    anchor = anchors_in_cells(anchors, strides, 2)

    sides = columns[4:6] * image_pixels(shapes, strides)
    overlap = _size_overlap(sides.reshape(2, 1, 1, -1), _anchors_in_pixels(anchors))
    real = ops.logical_and(overlap > 0, image >= 0)
    best = ops.logical_and(real, overlap >= ops.amax(overlap, (0, 1), keepdims=True))
    mask = ops.logical_or(best, ops.logical_and(real, overlap > threshold))
    first, second = _ranks(len(anchors) * per_level, count)
    rank = ops.where(best.reshape(-1), first, second)

    cell = ops.maximum(ops.minimum(ops.floor(centre).astype(mstype.int32), grid - 1), ops.zeros_like(grid))
    column, line = ops.unstack(cell, 0)
    row = ops.maximum(image, ops.zeros_like(image)) * rows_per_image(shapes, per_level, 2)
    row = row + line * rows_per_line(shapes, 2) + column + rows_of_anchors(shapes, per_level, 2)

    shape = mask.shape
    return (
        mask.reshape(-1),
        rank,
        row.reshape(-1),
        ops.broadcast_to(centre - cell.astype(mstype.float32), (2,) + shape).reshape(2, -1),
        ops.broadcast_to(size, (2,) + shape).reshape(2, -1),
        ops.broadcast_to(anchor, (2,) + shape).reshape(2, -1),
        ops.broadcast_to(_numbers(count), shape).reshape(-1),
    )


def _size_overlap(size: Tensor, anchor: Tensor) -> Tensor:
    """Return the IoU (level, anchor, label) of sizes (2, 1, 1, label) and anchors (2, level, anchor, 1)."""
    width, height = ops.unstack(size, 0)
    anchor_width, anchor_height = ops.unstack(anchor, 0)
    shared = ops.minimum(width, anchor_width) * ops.minimum(height, anchor_height)
    return shared / (width * height + anchor_width * anchor_height - shared)


# The constants below are computed while a graph is compiled. Their axes: (x and y, level, anchor, label).


@constexpr
def image_pixels(shapes: Shapes, strides: tuple[int, ...]) -> Tensor:
    """Return (2, 1) float32, width and height of the images in pixels."""
    return Tensor((np.asarray(shapes[0], np.float32)[::-1] * strides[0]).reshape(2, 1))


@constexpr
def _anchors_in_pixels(anchors: Anchors) -> Tensor:
    return Tensor(np.asarray(anchors, np.float32).transpose(2, 0, 1)[:, :, :, None].copy())


@constexpr
def _ranks(anchors: int, labels: int) -> tuple[Tensor, Tensor]:
    """Return the ranks of claims on best anchors, and of claims on anchors above the threshold."""
    numbers = np.tile(np.arange(1, labels + 1, dtype=np.int32), anchors)
    return Tensor(numbers + labels), Tensor(numbers)


@constexpr
def _numbers(count: int) -> Tensor:
    return Tensor(np.arange(count, dtype=np.int32))
