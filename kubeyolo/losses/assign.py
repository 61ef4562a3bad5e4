"""Label assignment of the YOLOv5 family, in static shapes: which cells and anchors are responsible for a label.

A label and an anchor match when neither side differs by a factor of ``anchor_t`` or more. The cell of the label's
centre is responsible for a match, and so are up to two neighbours: on each axis the neighbour nearer to the centre.
Every label is compared with every level, offset and anchor; pairs that do not match are masked, not removed.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, ops
from mindspore import dtype as mstype
from mindspore.ops.primitive import constexpr

from kubeyolo.models.facts import Anchors

# Centre, left, up, right, down: in one cell a later candidate replaces an earlier one.
_OFFSETS = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (-0.5, 0.0), (0.0, -0.5))

Shapes = tuple[tuple[int, int], ...]


Assignment = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def assign(labels: Tensor, anchors: Anchors, strides: tuple[int, ...], shapes: Shapes, anchor_t: float) -> Assignment:
    """Find the candidates of a batch; all arithmetic is float32, because the last bit decides at the borders of cells.

    Args:
        labels: (T, 6) image, class, centre x, centre y, width, height; boxes as fractions of the image; unused rows
            have image -1.
        anchors: (level, anchor, 2) widths and heights in pixels.
        strides: Stride of each level in pixels.
        shapes: (ny, nx) of each level.
        anchor_t: Largest ratio of sides, exclusive.

    Returns:
        The candidates, flattened from (level, offset, anchor, label) to K, as a plain tuple for graph mode:
        mask (K,) bool, whether a candidate is a positive;
        row (K,) int32, its row in the predictions of its level (image, anchor, y, x); a masked candidate has a row too,
        which must not be written to;
        centre (2, K) of the label from the corner of the cell, in cells;
        size (2, K) of the label in cells;
        anchor (2, K), its width and height in cells;
        label_class (K,) int32.
    """
    columns = ops.transpose(labels, (1, 0))
    image, label_class, _, _, _, _ = ops.unstack(columns.astype(mstype.int32), 0)
    grid, cells, offsets = grid_sides(shapes, 3), cell_counts(shapes, 3), _offsets()
    centre = columns[2:4].reshape(2, 1, 1, 1, -1) * cells
    size = columns[4:6].reshape(2, 1, 1, 1, -1) * cells

    anchor = anchors_in_cells(anchors, strides, 3)
    ratio = size / anchor
    fits_width, fits_height = ops.unstack(ops.maximum(ratio, 1 / ratio) < anchor_t, 0)
    matched = ops.logical_and(ops.logical_and(fits_width, fits_height), image >= 0)
    mirrored = cells - centre
    left, up = ops.unstack(ops.logical_and(centre - ops.floor(centre) < 0.5, centre > 1), 0)
    right, down = ops.unstack(ops.logical_and(mirrored - ops.floor(mirrored) < 0.5, mirrored > 1), 0)
    mask = ops.logical_and(matched, ops.concat((ops.ones_like(left), left, up, right, down), 1))

    # The cell of a centre at 0 or 1 may be outside of the grid: the clamp moves it to the border.
    cell = (centre - offsets).astype(mstype.int32)
    cell = ops.maximum(ops.minimum(cell, grid - 1), ops.zeros_like(cell))
    column, line = ops.unstack(cell, 0)
    per_level = len(anchors[0])
    row = ops.maximum(image, ops.zeros_like(image)) * rows_per_image(shapes, per_level, 3)
    row = row + line * rows_per_line(shapes, 3) + column + rows_of_anchors(shapes, per_level, 3)

    shape = mask.shape
    return (
        mask.reshape(-1),
        row.reshape(-1),
        ops.broadcast_to(centre - cell.astype(mstype.float32), (2,) + shape).reshape(2, -1),
        ops.broadcast_to(size, (2,) + shape).reshape(2, -1),
        ops.broadcast_to(anchor, (2,) + shape).reshape(2, -1),
        ops.broadcast_to(label_class, shape).reshape(-1),
    )


# The constants below are computed while a graph is compiled. Their axes: (x and y, level, offset, anchor, label);
# without offsets, two axes follow the level instead of three.


@constexpr
def _offsets() -> Tensor:
    return Tensor(np.asarray(_OFFSETS, np.float32).T.reshape(2, 1, -1, 1, 1).copy())


@constexpr
def grid_sides(shapes: Shapes, axes: int) -> Tensor:
    """Return (2, level, ...) int32, columns and rows of the cells of each level."""
    return Tensor(np.asarray(shapes, np.int32)[:, ::-1].T.reshape(2, -1, *(1,) * axes).copy())


@constexpr
def cell_counts(shapes: Shapes, axes: int) -> Tensor:
    """Return :func:`grid_sides` as float32."""
    return Tensor(np.asarray(shapes, np.float32)[:, ::-1].T.reshape(2, -1, *(1,) * axes).copy())


@constexpr
def anchors_in_cells(anchors: Anchors, strides: tuple[int, ...], axes: int) -> Tensor:
    """Return (2, level, ..., anchor, 1) float32, width and height of the anchors in cells of their level."""
    sides = np.asarray(anchors, np.float32) / np.asarray(strides, np.float32).reshape(-1, 1, 1)
    return Tensor(sides.transpose(2, 0, 1).reshape(2, len(anchors), *(1,) * (axes - 2), -1, 1).copy())


@constexpr
def rows_per_image(shapes: Shapes, anchors_per_level: int, axes: int) -> Tensor:
    """Return (level, ...) int32, the number of predictions of an image."""
    rows = [anchors_per_level * ny * nx for ny, nx in shapes]
    return Tensor(np.asarray(rows, np.int32).reshape(-1, *(1,) * axes))


@constexpr
def rows_per_line(shapes: Shapes, axes: int) -> Tensor:
    """Return (level, ...) int32, the number of predictions of an anchor in a row of cells."""
    return Tensor(np.asarray([nx for _, nx in shapes], np.int32).reshape(-1, *(1,) * axes))


@constexpr
def rows_of_anchors(shapes: Shapes, anchors_per_level: int, axes: int) -> Tensor:
    """Return (level, ..., anchor, 1) int32, the first prediction of each anchor among the predictions of an image."""
    cells = np.asarray([ny * nx for ny, nx in shapes], np.int32).reshape(-1, *(1,) * axes)
    return Tensor(cells * np.arange(anchors_per_level, dtype=np.int32).reshape(-1, 1))
