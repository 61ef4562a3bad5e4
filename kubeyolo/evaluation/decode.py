"""Decodes the raw outputs of a network to boxes in pixels of its input and scores in 0..1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from kubeyolo.arrays import Float32Array

DecodeKind = Literal["yolov5", "darknet"]
Anchors = Sequence[Sequence[Sequence[float]]]


def decode(
    raws: Sequence[Float32Array],
    anchors: Anchors,
    strides: Sequence[int],
    decode: DecodeKind,
    scale_xy: Sequence[float],
) -> Float32Array:
    """Decode all levels.

    With t the raw values, s = ``scale_xy`` of the level and grid the cell's column and row,
    centre = (s·σ(t) − (s − 1)/2 + grid)·stride. Sizes are (2σ(t))²·anchor for ``yolov5`` (YOLOv5 and Scaled-YOLOv4)
    and exp(t)·anchor for ``darknet`` (YOLOv3 and YOLOv4 papers).

    Args:
        raws: One (N, na, ny, nx, 5+nc) array for each level, before any sigmoid.
        anchors: (level, anchor, 2) width and height in pixels.
        strides: Pixels of a cell, for each level.
        decode: The formula of the sizes.
        scale_xy: s, for each level.

    Returns:
        (N, boxes, 5+nc) float32: centre x, centre y, width, height in input pixels, objectness and class scores in
        0..1; boxes ordered by level, anchor, row, column.

    Raises:
        ValueError: The numbers of levels or anchors differ.
    """
    if not len(raws) == len(anchors) == len(strides) == len(scale_xy):
        counts = f"{len(raws)} raw levels, {len(anchors)} anchor levels, {len(strides)} strides"
        raise ValueError(f"{counts} and {len(scale_xy)} values of scale_xy")
    levels = [
        decode_level(raw, np.asarray(level_anchors, np.float32), stride, decode, scale)
        for raw, level_anchors, stride, scale in zip(raws, anchors, strides, scale_xy, strict=True)
    ]
    return np.concatenate(levels, axis=1)


def decode_above(
    raws: Sequence[Float32Array],
    anchors: Anchors,
    strides: Sequence[int],
    decode: DecodeKind,
    scale_xy: Sequence[float],
    conf_threshold: float,
) -> list[Float32Array]:
    """Decode the boxes whose objectness exceeds a threshold, in the order and with the values of :func:`decode`.

    Nearly all boxes of a trained network are below the usual thresholds; only their objectness is computed.

    Args:
        raws: As in :func:`decode`; there may be fewer levels than the network has.
        anchors: As in :func:`decode`, of these levels.
        strides: As in :func:`decode`, of these levels.
        decode: The formula of the sizes.
        scale_xy: s, for each of these levels.
        conf_threshold: Objectness must exceed this threshold; NaN never does.

    Returns:
        For each image (boxes above the threshold, 5+nc) float32.
    """
    levels = [
        _decode_chosen(raw, np.asarray(level_anchors, np.float32), stride, decode, scale, conf_threshold)
        for raw, level_anchors, stride, scale in zip(raws, anchors, strides, scale_xy, strict=True)
    ]
    return [np.concatenate(image) for image in zip(*levels, strict=True)]


def _decode_chosen(
    raw: Float32Array, anchors: Float32Array, stride: int, decode: DecodeKind, scale: float, conf_threshold: float
) -> list[Float32Array]:
    """Decode the boxes above the threshold of one (N, na, ny, nx, 5+nc) level."""
    image, anchor, row, column = np.nonzero(sigmoid(raw[..., 4]) > conf_threshold)
    chosen = raw[image, anchor, row, column]
    out = sigmoid(chosen)
    shift = np.float32((scale - 1.0) / 2.0)
    for axis, cell in enumerate((column, row)):
        out[:, axis] = (np.float32(scale) * out[:, axis] - shift + cell.astype(np.float32)) * np.float32(stride)
    out[:, 2:4] = _sizes(chosen[:, 2:4], out[:, 2:4], anchors[anchor], decode)
    return np.split(out, np.searchsorted(image, np.arange(1, len(raw))))


def _sizes(raw: Float32Array, probability: Float32Array, anchors: Float32Array, decode: DecodeKind) -> Float32Array:
    """Return widths and heights (..., 2) from raw values t, their σ(t), and the anchors; see :func:`decode`."""
    if decode == "yolov5":
        return np.square(np.float32(2) * probability) * anchors
    # An untrained or diverged network may give any size; boxes of infinite size are clipped later.
    with np.errstate(over="ignore"):
        sizes: Float32Array = np.exp(raw) * anchors
    return sizes


def decode_level(
    raw: Float32Array, anchors: Float32Array, stride: int, decode: DecodeKind, scale: float
) -> Float32Array:
    """Decode one (N, na, ny, nx, 5+nc) level into (N, na·ny·nx, 5+nc); see :func:`decode`."""
    batch, per_cell, rows, columns, attributes = raw.shape
    if anchors.shape != (per_cell, 2):
        raise ValueError(f"anchors of shape {anchors.shape} for {per_cell} anchors a cell")
    out = sigmoid(raw)
    shift = np.float32((scale - 1.0) / 2.0)
    for axis, cell in enumerate((np.arange(columns, dtype=np.float32), np.arange(rows, dtype=np.float32)[:, None])):
        out[..., axis] = (np.float32(scale) * out[..., axis] - shift + cell) * np.float32(stride)
    out[..., 2:4] = _sizes(raw[..., 2:4], out[..., 2:4], anchors[None, :, None, None, :], decode)
    return out.reshape(batch, per_cell * rows * columns, attributes)


def sigmoid(values: Float32Array) -> Float32Array:
    """Return σ(values) in float32, as a new array."""
    with np.errstate(over="ignore"):  # exp(-x) of a very negative x is infinite, and 1/inf is the right 0
        out = np.exp(np.negative(values, dtype=np.float32))
    out += 1
    return np.reciprocal(out, out=out)
