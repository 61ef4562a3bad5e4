"""From the raw outputs of a network to boxes in pixels of its input and scores in 0..1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from kubeyolo.arrays import Float32Array

DecodeKind = Literal["yolov5", "darknet"]
Anchors = Sequence[Sequence[Sequence[float]]]

YOLOV5_SCALE_XY = 2.0
DARKNET_SCALE_XY = 1.0


def decode(
    raws: Sequence[Float32Array],
    anchors: Anchors,
    strides: Sequence[int],
    decode: DecodeKind = "yolov5",
    scale_xy: float | Sequence[float] | None = None,
) -> Float32Array:
    """Decode all levels.

    With t the raw values, s = ``scale_xy`` of the level and grid the cell's column and row,
    centre = (s·σ(t) − (s − 1)/2 + grid)·stride. Sizes are (2σ(t))²·anchor for ``yolov5`` (YOLOv5 and Scaled-YOLOv4)
    and exp(t)·anchor for ``darknet`` (YOLOv3 and YOLOv4 papers).

    Args:
        raws: One (N, na, ny, nx, 5+nc) array a level, before any sigmoid.
        anchors: (level, anchor, 2) width and height in pixels.
        strides: Pixels a cell, one a level.
        decode: The formula of the sizes.
        scale_xy: s, one for all levels or one a level; by default 2 for ``yolov5`` and 1 for ``darknet``.

    Returns:
        (N, boxes, 5+nc) float32: centre x, centre y, width, height in input pixels, objectness and class scores in
        0..1; boxes ordered by level, anchor, row, column.

    Raises:
        ValueError: The numbers of levels or anchors differ.
    """
    if not len(raws) == len(anchors) == len(strides):
        raise ValueError(f"{len(raws)} raw levels, {len(anchors)} anchor levels and {len(strides)} strides")
    scales = level_scales(decode, scale_xy, len(raws))
    levels = [
        decode_level(raw, np.asarray(level_anchors, np.float32), stride, decode, scale)
        for raw, level_anchors, stride, scale in zip(raws, anchors, strides, scales, strict=True)
    ]
    return np.concatenate(levels, axis=1)


def level_scales(decode: DecodeKind, scale_xy: float | Sequence[float] | None, levels: int) -> tuple[float, ...]:
    """Return the centre scale s of every level.

    Raises:
        ValueError: ``scale_xy`` is a sequence of another length than ``levels``.
    """
    if scale_xy is None:
        scale_xy = YOLOV5_SCALE_XY if decode == "yolov5" else DARKNET_SCALE_XY
    if isinstance(scale_xy, int | float):
        return (float(scale_xy),) * levels
    if len(scale_xy) != levels:
        raise ValueError(f"{len(scale_xy)} values of scale_xy for {levels} levels")
    return tuple(float(scale) for scale in scale_xy)


def decode_level(
    raw: Float32Array, anchors: Float32Array, stride: int, decode: DecodeKind, scale: float
) -> Float32Array:
    """Decode one (N, na, ny, nx, 5+nc) level into (N, na·ny·nx, 5+nc); see :func:`decode`."""
    batch, per_cell, rows, columns, attributes = raw.shape
    if anchors.shape != (per_cell, 2):
        raise ValueError(f"anchors of shape {anchors.shape} for {per_cell} anchors a cell")
    out = sigmoid(raw)
    shift = np.float32((scale - 1.0) / 2.0)
    out[..., 0] = (np.float32(scale) * out[..., 0] - shift + np.arange(columns, dtype=np.float32)) * np.float32(stride)
    out[..., 1] = (np.float32(scale) * out[..., 1] - shift + np.arange(rows, dtype=np.float32)[:, None]) * np.float32(
        stride
    )
    sizes = anchors[None, :, None, None, :]
    if decode == "yolov5":
        out[..., 2:4] = np.square(np.float32(2) * out[..., 2:4]) * sizes
    else:
        with np.errstate(
            over="ignore"
        ):  # an untrained or diverged network may give any size: infinite is clipped later
            out[..., 2:4] = np.exp(raw[..., 2:4]) * sizes
    return out.reshape(batch, per_cell * rows * columns, attributes)


def sigmoid(values: Float32Array) -> Float32Array:
    """Return σ(values) in float32, as a new array."""
    with np.errstate(over="ignore"):  # exp(-x) of a very negative x is infinite, and 1/inf is the right 0
        out = np.exp(np.negative(values, dtype=np.float32))
    out += 1
    return np.reciprocal(out, out=out)
