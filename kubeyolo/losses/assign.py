"""Label assignment of the YOLOv5 family, in static shapes: which cell and anchor answers for which label.

A label and an anchor match when neither side differs by a factor of ``anchor_t`` or more. A match is answered by the
cell of the label's centre and by up to two neighbours: those on the near side of the centre along each axis.
Every label is tried with every level, offset and anchor; what does not match is masked, not removed.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, ops
from mindspore import dtype as mstype
from mindspore.ops.primitive import constexpr

# Centre, left, up, right, down: the order in which later answers replace earlier ones in one cell.
_OFFSETS = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (-0.5, 0.0), (0.0, -0.5))

LevelAnchors = tuple[tuple[tuple[float, float], ...], ...]
Shapes = tuple[tuple[int, int], ...]


Assignment = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def assign(
    labels: Tensor, anchors: LevelAnchors, strides: tuple[int, ...], shapes: Shapes, anchor_t: float
) -> Assignment:
    """Find the candidates of a batch; all arithmetic is float32, as single bits decide at the borders of cells.

    Args:
        labels: (T, 6) image, class, centre x, centre y, width, height; boxes as fractions of the image; unused rows
            have image -1.
        anchors: (level, anchor, 2) widths and heights in pixels.
        strides: Stride of each level in pixels.
        shapes: (ny, nx) of each level.
        anchor_t: Largest ratio of sides, exclusive.

    Returns:
        The candidates, flattened from (level, offset, anchor, label) to K. A plain tuple, as graph mode knows no other:
        mask (K,) bool, whether a candidate is a positive;
        row (K,) int32, its row in the predictions of its level (image, anchor, y, x), where a masked candidate has some
        row too, which must not be written to;
        centre (2, K) of the label from the corner of the cell, in cells;
        size (2, K) of the label in cells;
        anchor (2, K), its width and height in cells;
        label_class (K,) int32.
    """
    columns = ops.transpose(labels, (1, 0))
    image, label_class, _, _, _, _ = ops.unstack(columns.astype(mstype.int32), 0)
    grid, cells, offsets = _grid(shapes), _cells(shapes), _offsets()
    centre = columns[2:4].reshape(2, 1, 1, 1, -1) * cells
    size = columns[4:6].reshape(2, 1, 1, 1, -1) * cells

    anchor = _anchors_in_cells(anchors, strides)
    ratio = size / anchor
    fits_width, fits_height = ops.unstack(ops.maximum(ratio, 1 / ratio) < anchor_t, 0)
    matched = ops.logical_and(ops.logical_and(fits_width, fits_height), image >= 0)
    mirrored = cells - centre
    left, up = ops.unstack(ops.logical_and(centre - ops.floor(centre) < 0.5, centre > 1), 0)
    right, down = ops.unstack(ops.logical_and(mirrored - ops.floor(mirrored) < 0.5, mirrored > 1), 0)
    mask = ops.logical_and(matched, ops.concat((ops.ones_like(left), left, up, right, down), 1))

    # A centre at 0 or 1 may step outside of the grid: the clamp brings it back.
    cell = (centre - offsets).astype(mstype.int32)
    cell = ops.maximum(ops.minimum(cell, grid - 1), ops.zeros_like(cell))
    column, line = ops.unstack(cell, 0)
    per_image, per_line = _rows_per_image(shapes, len(anchors[0])), _rows_per_line(shapes)
    row = ops.maximum(image, ops.zeros_like(image)) * per_image + line * per_line + column
    row = row + _rows_of_anchors(shapes, len(anchors[0]))

    shape = mask.shape
    return (
        mask.reshape(-1),
        row.reshape(-1),
        ops.broadcast_to(centre - cell.astype(mstype.float32), (2,) + shape).reshape(2, -1),
        ops.broadcast_to(size, (2,) + shape).reshape(2, -1),
        ops.broadcast_to(anchor, (2,) + shape).reshape(2, -1),
        ops.broadcast_to(label_class, shape).reshape(-1),
    )


# The constants below are made while a graph is compiled. Their axes: (x and y, level, offset, anchor, label).


@constexpr
def _grid(shapes: Shapes) -> Tensor:
    return Tensor(np.asarray(shapes, np.int32)[:, ::-1].T.reshape(2, -1, 1, 1, 1).copy())


@constexpr
def _cells(shapes: Shapes) -> Tensor:
    return Tensor(np.asarray(shapes, np.float32)[:, ::-1].T.reshape(2, -1, 1, 1, 1).copy())


@constexpr
def _offsets() -> Tensor:
    return Tensor(np.asarray(_OFFSETS, np.float32).T.reshape(2, 1, -1, 1, 1).copy())


@constexpr
def _anchors_in_cells(anchors: LevelAnchors, strides: tuple[int, ...]) -> Tensor:
    sides = np.asarray(anchors, np.float32) / np.asarray(strides, np.float32).reshape(-1, 1, 1)
    return Tensor(sides.transpose(2, 0, 1)[:, :, None, :, None].copy())


@constexpr
def _rows_per_image(shapes: Shapes, anchors_per_level: int) -> Tensor:
    return Tensor(np.asarray([anchors_per_level * ny * nx for ny, nx in shapes], np.int32).reshape(-1, 1, 1, 1))


@constexpr
def _rows_per_line(shapes: Shapes) -> Tensor:
    return Tensor(np.asarray([nx for _, nx in shapes], np.int32).reshape(-1, 1, 1, 1))


@constexpr
def _rows_of_anchors(shapes: Shapes, anchors_per_level: int) -> Tensor:
    cells = np.asarray([ny * nx for ny, nx in shapes], np.int32).reshape(-1, 1, 1, 1)
    return Tensor(cells * np.arange(anchors_per_level, dtype=np.int32).reshape(1, 1, -1, 1))
