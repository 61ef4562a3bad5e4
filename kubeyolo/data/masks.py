"""The box around a COCO mask: polygons, or plain or compressed run lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kubeyolo.arrays import Int64Array
from kubeyolo.data.columns import whole_number

_BITS, _MORE, _SIGN, _FIRST = 5, 0x20, 0x10, 48


def mask_box(segmentation: Any) -> tuple[float, float, float, float] | None:
    """Return left, top, width, height in pixels of the box around a mask, or None if it is not a mask.

    Args:
        segmentation: A list of polygons [x1, y1, x2, y2, ...], or ``{"size": [height, width], "counts": ...}`` with run
            lengths as a list or as COCO's compressed text; runs go down the columns, and the first run is background.
    """
    if isinstance(segmentation, dict):
        return _run_box(segmentation)
    return _polygon_box(segmentation)


def _polygon_box(polygons: Any) -> tuple[float, float, float, float] | None:
    if not isinstance(polygons, list) or not polygons:
        return None
    if not isinstance(polygons[0], list):
        polygons = [polygons]
    try:
        flat = [np.array(polygon, np.float64).reshape(-1, 2) for polygon in polygons if polygon]
    except (TypeError, ValueError):
        return None
    points = np.concatenate(flat) if flat else np.zeros((0, 2))
    if len(points) < 2 or not np.isfinite(points).all():
        return None
    low, high = points.min(0), points.max(0)
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])


def _run_box(runs: dict[str, Any]) -> tuple[float, float, float, float] | None:
    size, counts = runs.get("size"), runs.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        return None
    height, width = size
    lengths = _uncompressed(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, Sequence):
        return None
    numbers = [run if type(run) is int else whole_number(run) for run in lengths]
    if not all(run is not None and 0 <= run <= height * width for run in numbers):
        return None
    ends = np.cumsum(np.array(numbers, np.int64))
    if not len(ends) or ends[-1] > height * width:
        return None
    return _box_of_runs(ends, height)


def _box_of_runs(ends: Int64Array, height: int) -> tuple[float, float, float, float] | None:
    """Return the box around runs, given their ends; every second run is inside the mask."""
    first, last = ends[0::2][: len(ends) // 2], ends[1::2] - 1
    inside = last >= first
    first, last = first[inside], last[inside]
    if not len(first):
        return None
    left, right = first // height, last // height
    top, bottom = first % height, last % height
    # A run that continues in the next column touches the last row of its column and the first row of the next.
    wraps = right > left
    y1 = 0 if wraps.any() else int(top.min())
    y2 = height - 1 if wraps.any() else int(bottom.max())
    x1, x2 = int(left.min()), int(right.max())
    return float(x1), float(y1), float(x2 - x1 + 1), float(y2 - y1 + 1)


def _uncompressed(text: str) -> list[int] | None:
    """Return the run lengths of COCO's text, which has five bits per character, lowest first.

    From the fourth run on, each run is written as its difference from the run two positions before.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        code = ord(character) - _FIRST
        if not 0 <= code < 64:
            return None
        value |= (code & 0x1F) << shift
        shift += _BITS
        if code & _MORE:
            continue
        if code & _SIGN:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    return None if shift else runs
