"""Recognizes, by their values, boxes that are not [left, top, width, height] in pixels.

A split is judged as a whole: a few odd rows (a box without width, a box far outside) do not change the result.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kubeyolo.arrays import BoolArray, Float64Array
from kubeyolo.data.findings import Findings

TOLERANCE = 1.0
"""A box that extends by at most this number of pixels beyond its image is clipped without a finding; COCO has some."""

SYSTEMATIC_LEAST = 3
"""A fault is systematic if at least this number of boxes has it."""

_MIXED_SHARE = 0.005
"""A file in pixels is mixed if a larger share of its boxes is within 0 to 1; fewer boxes are just very small."""

_FRACTION_ODD, _FRACTION_FARTHEST = 0.1, 2.0
"""Largest share of boxes outside 0 to 1 in a file of fractions, and the largest absolute value of a fraction."""

_FAR_SHARE = 0.05
"""Careless drawing does not explain a box that extends by a larger share of the side beyond its image."""

_BEYOND, _BEYOND_SURELY = 0.1, 1 / 3
"""A different form is likely if a larger share of boxes is far beyond their image.

The second share is used if the areas fit [left, top, width, height].
"""

_ODD_LEAST, _ODD_SHARE = 10, 0.02
"""One odd box is tolerated among at least this number of boxes; in large files, this share of odd boxes is
tolerated."""

FORMS = ("box_corners", "box_centres")
"""Codes of the forms that the configuration can choose, in the order in which they are tried."""


def in_pixels(
    xywh: Float64Array,
    size: Float64Array,
    area: Float64Array,
    name: Callable[[int], str],
    findings: Findings,
    assumed: str = "",
) -> Float64Array:
    """Return boxes (B, 4) as [left, top, width, height] in pixels, whatever form the file has.

    Args:
        xywh: The boxes as the file has them; all values are finite.
        size: Width and height in pixels of the image of each box (B, 2).
        area: Areas (B,) in square pixels, NaN if absent.
        name: Returns the text that describes the box at a position in messages.
        findings: Receives a finding about the form; if its action is "warn", the boxes are not changed.
        assumed: The code of the form of another split of the data set; used if the boxes fit it.
    """
    if not len(xywh):
        return xywh
    fractions = _are_fractions(xywh, size)
    if _is_file_of_fractions(xywh, fractions):
        findings.add("box_fractions", name(int(np.flatnonzero(fractions)[0])), len(xywh))
        xywh = xywh * np.concatenate([size, size], 1)
    elif fractions.sum() >= max(1.0, _MIXED_SHARE * len(xywh)):
        findings.add("boxes_mixed", name(int(np.flatnonzero(fractions)[0])), int(fractions.sum()))
    for code, looks, fits, read in (
        ("box_corners", _look_like_corners, _fit_corners, _from_corners),
        ("box_centres", _look_like_centres, _fit_centres, _from_centres),
    ):
        if looks(xywh, size, area) or (assumed == code and fits(xywh, size, area)):
            findings.add(code, name(0), len(xywh))
            return xywh if findings.action(code) == "warn" else read(xywh)
    return xywh


def _are_fractions(xywh: Float64Array, size: Float64Array) -> BoolArray:
    """Tell which boxes lie within 0 to 1 in images larger than 4 x 4 pixels; such boxes would be tiny in pixels."""
    inside = ((xywh >= -1e-6) & (xywh <= 1 + 1e-6)).all(1) & (xywh[:, 2:] > 0).all(1)
    result: BoolArray = inside & (size > 4).all(1)
    return result


def _is_file_of_fractions(xywh: Float64Array, fractions: BoolArray) -> bool:
    """Tell whether boxes are fractions: any boxes outside 0 to 1 are empty, or are few and not far outside."""
    filled = (xywh[:, 2:] != 0).any(1)
    if not fractions.any() or (np.abs(xywh) > _FRACTION_FARTHEST).any():
        return False
    odd = int((~fractions[filled]).sum())
    return odd <= max(1.0, _FRACTION_ODD * len(xywh)) and odd < fractions.sum()


def _are_nearly_all(fits: BoolArray) -> bool:
    odd = int((~fits).sum())
    return odd <= (max(1.0, _ODD_SHARE * len(fits)) if len(fits) >= _ODD_LEAST else 0)


def _are_far_beyond(xywh: Float64Array, size: Float64Array) -> BoolArray:
    beyond = xywh[:, :2] + xywh[:, 2:] - size
    result: BoolArray = (beyond > np.maximum(TOLERANCE, _FAR_SHARE * size)).any(1)
    return result


def _from_corners(xywh: Float64Array) -> Float64Array:
    return np.concatenate([xywh[:, :2], xywh[:, 2:] - xywh[:, :2]], 1)


def _from_centres(xywh: Float64Array) -> Float64Array:
    return np.concatenate([xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, 2:]], 1)


def _area_says(xywh: Float64Array, area: Float64Array) -> tuple[float, float, float]:
    """Return three shares of the areas: fitting corners, fitting widths and heights, and too large for corners."""
    known = np.isfinite(area) & (area > 1)
    if not known.any():
        return 0.0, 0.0, 0.0
    area, xywh = area[known], xywh[known]
    corners = (xywh[:, 2] - xywh[:, 0]) * (xywh[:, 3] - xywh[:, 1])
    usual = xywh[:, 2] * xywh[:, 3]
    near = 0.01 * area + 1
    return (
        float((np.abs(area - corners) <= near).mean()),
        float((np.abs(area - usual) <= near).mean()),
        float((area > 1.05 * corners + 4).mean()),
    )


def _have_corners(xywh: Float64Array, size: Float64Array) -> bool:
    """Tell whether nearly all boxes lie in their images if they are read as [x1, y1, x2, y2]."""
    fits = (xywh[:, 2:] > xywh[:, :2]).all(1) & (xywh[:, 2:] <= size + TOLERANCE).all(1)
    return _are_nearly_all(fits & (xywh[:, :2] >= -TOLERANCE).all(1))


def _look_like_corners(xywh: Float64Array, size: Float64Array, area: Float64Array) -> bool:
    """Tell whether boxes fit their images and areas as [x1, y1, x2, y2] but not as [left, top, width, height]."""
    if not _have_corners(xywh, size):
        return False
    as_corners, as_usual, too_large = _area_says(xywh, area)
    if as_corners > 0.9 and as_usual < 0.1:
        return True
    beyond = _are_far_beyond(xywh, size)
    if len(xywh) < SYSTEMATIC_LEAST or (len(xywh) >= _ODD_LEAST and beyond.sum() < SYSTEMATIC_LEAST):
        return False
    # Some scripts write x2 * y2 as the area, so fitting areas alone do not prove [left, top, width, height].
    if as_usual > 0.9:
        return bool(beyond.mean() > _BEYOND_SURELY)
    return bool(beyond.mean() > _BEYOND and too_large <= 0.1)


def _fit_corners(xywh: Float64Array, size: Float64Array, area: Float64Array) -> bool:
    return _have_corners(xywh, size) and _area_says(xywh, area)[1] <= 0.9


def _look_like_centres(xywh: Float64Array, size: Float64Array, area: Float64Array) -> bool:
    """Tell whether boxes fit as [x centre, y centre, width, height], but many do not as [left, top, width, height]."""
    beyond = (xywh[:, :2] + xywh[:, 2:] > size + TOLERANCE).any(1)
    return _fit_centres(xywh, size, area) and bool(beyond.mean() > _BEYOND and beyond.sum() >= SYSTEMATIC_LEAST)


def _fit_centres(xywh: Float64Array, size: Float64Array, area: Float64Array) -> bool:
    half = xywh[:, 2:] / 2
    fits = (xywh[:, :2] - half >= -TOLERANCE).all(1) & (xywh[:, :2] + half <= size + TOLERANCE).all(1)
    return _are_nearly_all(fits)
