"""Large images in overlapping windows: where the windows are, and how their boxes become the boxes of the image.

Small objects keep their size in pixels, where an image that is resized as a whole would lose them. The network sees
the whole image as well, for objects that are larger than a window (sliced inference, https://arxiv.org/abs/2202.06934).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kubeyolo.arrays import BoolArray, Float32Array, Pixels
from kubeyolo.data.overlaps import areas, shared_areas
from kubeyolo.evaluation.nms import BLOCK, Candidates, suppress

EDGE = 2.0
"""Pixels: a box that is as near to an edge of its window, inside the image, is taken for cut off by the window."""

CUT_SHARE = 0.5
"""A box that is cut off is dropped if a box of its class covers a larger share of it."""


@dataclass(frozen=True)
class Window:
    """A part of an image, in pixels: left, top, width, height."""

    left: int
    top: int
    width: int
    height: int

    def of(self, pixels: Pixels) -> Pixels:
        """Return the pixels (height, width, 3) of the window, without a copy."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]

    def moved(self, rows: Float32Array) -> Float32Array:
        """Return rows x1, y1, x2, y2, score, class of the window with corners in pixels of the image."""
        offset = np.array([self.left, self.top, self.left, self.top, 0, 0], np.float32)
        return rows + offset

    def cuts(self, rows: Float32Array, width: int, height: int) -> BoolArray:
        """Tell which boxes (k,), in pixels of the image, end at an edge of the window that lies inside the image."""
        right, bottom = self.left + self.width, self.top + self.height
        cut = np.zeros(len(rows), np.bool_)
        if self.left > 0:
            cut |= rows[:, 0] <= self.left + EDGE
        if self.top > 0:
            cut |= rows[:, 1] <= self.top + EDGE
        if right < width:
            cut |= rows[:, 2] >= right - EDGE
        if bottom < height:
            cut |= rows[:, 3] >= bottom - EDGE
        return cut


@dataclass(frozen=True)
class Slicing:
    """How large images are divided.

    Attributes:
        side: Side of a window in pixels of the image.
        overlap: Smallest overlap of neighbouring windows, as a fraction of the side, rounded to pixels.
    """

    side: int
    overlap: float

    def windows(self, width: int, height: int) -> list[Window]:
        """Return the windows of an image of ``width`` x ``height`` pixels: rows of windows, then the whole image.

        An image that is not larger than a window has one window, the whole image. Windows are spread evenly, and none
        reaches over the edge of the image. The whole image is the last, so that of two equal scores the one of a window
        wins, whose box is more exact.
        """
        side, whole = self.side, Window(0, 0, width, height)
        if width <= side and height <= side:
            return [whole]
        across, down = self._starts(width), self._starts(height)
        parts = [Window(left, top, min(side, width), min(side, height)) for top in down for left in across]
        return [*parts, whole]

    def _starts(self, length: int) -> list[int]:
        if length <= self.side:
            return [0]
        beyond = length - self.side
        steps = math.ceil(beyond / max(1.0, self.side * (1 - self.overlap)))
        return [round(number * beyond / steps) for number in range(steps + 1)]


def merge(
    parts: Sequence[tuple[Window, Float32Array]], width: int, height: int, iou: float, max_det: int
) -> Float32Array:
    """Return the boxes of an image from those of its windows: rows (k, 6), best first.

    Boxes that lie inside their windows are merged by class-wise non-maximum suppression. A box that its window has cut
    off is dropped if a merged box of its class covers more than half of it; the other cut boxes are merged in the same
    way.

    Args:
        parts: Each window with its rows x1, y1, x2, y2, score, class (k, 6), in pixels of the image.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        iou: IoU above which the box with the lower score is dropped.
        max_det: Largest number of boxes.
    """
    rows = np.concatenate([each for _, each in parts])
    is_cut = np.concatenate([window.cuts(each, width, height) for window, each in parts])
    whole = _merged(rows[~is_cut], iou, max_det)
    cut = rows[is_cut]
    cut = _merged(cut[~_covered(cut, whole)], iou, max_det)
    both = np.concatenate([whole, cut])
    return both[np.argsort(-both[:, 4], kind="stable")][:max_det]


def _merged(rows: Float32Array, iou: float, max_det: int) -> Float32Array:
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    candidates = Candidates(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64))
    blocks = (candidates.part(slice(start, start + BLOCK)) for start in range(0, len(rows), BLOCK))
    return suppress(blocks, iou, max_det, distance=False)


def _covered(cut: Float32Array, whole: Float32Array) -> BoolArray:
    """Tell for each cut box (k,) whether a whole box of its class covers more than half of it."""
    same = cut[:, None, 5] == whole[None, :, 5]
    share = shared_areas(cut[:, :4], whole[:, :4]) > CUT_SHARE * areas(cut[:, :4])[:, None]
    covered: BoolArray = (same & share).any(axis=1)
    return covered
