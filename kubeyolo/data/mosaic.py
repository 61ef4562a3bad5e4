"""Places images on a canvas, crops a scaled and shifted window from it, and maps the boxes into the window.

The mosaic of YOLOv4 (Bochkovskiy et al. 2020, section 3.4) joins four images on a canvas of twice the training size
and then scales, shifts and crops it. The canvas is never painted: scale and shift keep edges parallel to the axes, so
each image is resized directly into its rectangle of the result. :mod:`kubeyolo.data.warp` paints the canvas where this
does not hold.

Coordinates are continuous: pixel i covers [i, i + 1). On each axis, a point X of the canvas is mapped to
``scale * (X - canvas / 2) + origin`` in the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from kubeyolo.arrays import BoolArray, Float32Array, Float64Array, Int64Array, Pixels
from kubeyolo.config.training_schema import AugmentConfig
from kubeyolo.data.labels import BoxTable
from kubeyolo.data.letterbox import FILL

MIN_SIDE = 2.0


@dataclass(frozen=True)
class BoxRule:
    """Which boxes of a sample are kept.

    Attributes:
        max_aspect: The longer side of a box must be less than this number of times the shorter side.
        min_area_left: More than this share of the area of a box must be left, 0..1.
        min_side: Both sides of a box must be longer than this number of pixels.
    """

    max_aspect: float
    min_area_left: float
    min_side: float = MIN_SIDE

    @classmethod
    def of(cls, config: AugmentConfig) -> BoxRule:
        """Return the rule of a configuration."""
        return cls(config.max_aspect, config.min_area_left)

    def has_shape(self, sides: Float64Array) -> BoolArray:
        """Tell which boxes are wide and high enough and not too long; ``sides`` (boxes, 2) are in px."""
        shorter, longer = sides.min(axis=1), sides.max(axis=1)
        fitting: BoolArray = (shorter > self.min_side) & (longer < self.max_aspect * shorter)
        return fitting

    def keeps(self, sides: Float64Array, whole: Float64Array) -> BoolArray:
        """Tell which boxes are kept.

        Args:
            sides: Width and height of the visible parts in px, (boxes, 2).
            whole: Area of the whole boxes in px², (boxes,).
        """
        kept: BoolArray = self.has_shape(sides) & (sides.prod(axis=1) > self.min_area_left * whole)
        return kept


@dataclass(frozen=True)
class Placement:
    """An image on the canvas: its number, size and upper left corner in whole pixels of the canvas."""

    image: int
    width: int
    height: int
    x: int
    y: int


@dataclass(frozen=True)
class Window:
    """Scale and shift of the canvas in the result, by the formula at the top of this module.

    Attributes:
        size: Side of the result in pixels.
        canvas: Side of the canvas in pixels; parts of images outside of the canvas are not visible.
        scale: Result pixels per canvas pixel.
        origin_x: Horizontal position of the centre of the canvas in the result, in pixels.
        origin_y: Vertical position of the centre of the canvas in the result, in pixels.
    """

    size: int
    canvas: int
    scale: float
    origin_x: float
    origin_y: float


@dataclass(frozen=True)
class Paste:
    """A rectangle of an image that is resized into a rectangle of the result.

    Both rectangles are (x1, y1, x2, y2) in whole pixels, so a point x of the image is mapped to
    ``target x1 + gain_x * (x - source x1)``.
    """

    placement: Placement
    source: tuple[int, int, int, int]
    target: tuple[int, int, int, int]

    @property
    def gain_x(self) -> float:
        """Horizontal scale: output pixels per source pixel."""
        return (self.target[2] - self.target[0]) / (self.source[2] - self.source[0])

    @property
    def gain_y(self) -> float:
        """Vertical scale: output pixels per source pixel."""
        return (self.target[3] - self.target[1]) / (self.source[3] - self.source[1])


def resized_pastes(pastes: Sequence[Paste], factor: float) -> tuple[Paste, ...]:
    """Return the pastes of a result that is ``factor`` times as large.

    Edges are rounded to whole pixels of this result, so rectangles that touch still touch. Rectangles that become empty
    are left out.
    """
    resized = []
    for paste in pastes:
        x1, y1, x2, y2 = (round(edge * factor) for edge in paste.target)
        if x1 < x2 and y1 < y2:
            resized.append(replace(paste, target=(x1, y1, x2, y2)))
    return tuple(resized)


def mosaic_placements(images: Sequence[int], sizes: Int64Array, center: tuple[int, int]) -> tuple[Placement, ...]:
    """Place four images so that each touches the center with one corner.

    Args:
        images: Four image numbers: upper left, upper right, lower left, lower right.
        sizes: int64 (all images, 2): width and height in pixels.
        center: Point (x, y) of the canvas at which the four images meet.
    """
    placed = []
    for quarter, image in enumerate(images):
        width, height = int(sizes[image, 0]), int(sizes[image, 1])
        x = center[0] if quarter % 2 else center[0] - width
        y = center[1] if quarter // 2 else center[1] - height
        placed.append(Placement(image, width, height, x, y))
    return tuple(placed)


def _visible(start: int, length: int, origin: float, window: Window) -> tuple[int, int, int, int] | None:
    """Return the source and target interval of an image on one axis, or None if no part of it is visible."""
    half = window.canvas / 2
    first = round(window.scale * (max(start, 0) - half) + origin)
    last = round(window.scale * (min(start + length, window.canvas) - half) + origin)
    first, last = min(max(first, 0), window.size), min(max(last, 0), window.size)
    if last <= first:
        return None
    corner = window.scale * (start - half) + origin
    source_first = min(max(round((first - corner) / window.scale), 0), length - 1)
    source_last = min(max(round((last - corner) / window.scale), source_first + 1), length)
    return source_first, source_last, first, last


def visible_pastes(placements: Sequence[Placement], window: Window) -> tuple[Paste, ...]:
    """Return the visible part of each image; images without a visible part are left out.

    Target rectangles are rounded to whole pixels of the result and source rectangles to whole pixels of the image,
    so the size of a target rectangle deviates from the window's scale by at most one pixel. Boxes are mapped as their
    image is, so they still fit exactly. Images that touch on the canvas touch in the result.
    """
    pastes = []
    for placed in placements:
        horizontal = _visible(placed.x, placed.width, window.origin_x, window)
        vertical = _visible(placed.y, placed.height, window.origin_y, window)
        if horizontal and vertical:
            source = horizontal[0], vertical[0], horizontal[1], vertical[1]
            target = horizontal[2], vertical[2], horizontal[3], vertical[3]
            pastes.append(Paste(placed, source, target))
    return tuple(pastes)


def compose(pastes: Sequence[Paste], read_tile: Callable[[int], Pixels], out: Pixels) -> None:
    """Paint the images into ``out``, uint8 (size, size, channel), on a background of grey 114.

    Args:
        pastes: The parts of images, and the rectangles into which they are resized.
        read_tile: Returns the image with a given number, uint8 (height, width, channel), in the size of its placement.
        out: The result.
    """
    out.fill(FILL)
    for paste in pastes:
        left, top, right, bottom = paste.source
        x1, y1, x2, y2 = paste.target
        tile = read_tile(paste.placement.image)
        cv2.resize(
            tile[top:bottom, left:right], (x2 - x1, y2 - y1), dst=out[y1:y2, x1:x2], interpolation=cv2.INTER_LINEAR
        )


def visible_boxes(pastes: Sequence[Paste], boxes: BoxTable, size: int, rule: BoxRule) -> Float32Array:
    """Return the boxes that the rule keeps, clipped to the visible part of their image.

    Args:
        pastes: The parts of images, and the rectangles into which they are resized.
        boxes: The boxes of all images.
        size: Side of the result in pixels.
        rule: Which boxes are kept.

    Returns:
        float32 (boxes, 5): class, cx, cy, w, h as fractions of the result.
    """
    spans = [slice(boxes.start[p.placement.image], boxes.start[p.placement.image + 1]) for p in pastes]
    counts = [span.stop - span.start for span in spans]
    if not sum(counts):
        return np.zeros((0, 5), np.float32)
    fractions = np.concatenate([boxes.corners[span] for span in spans])
    classes = np.concatenate([boxes.classes[span] for span in spans])

    def for_boxes(values: list[tuple[float, ...]]) -> Float64Array:
        return np.repeat(np.array(values, np.float64), counts, axis=0)

    gain = for_boxes([(p.gain_x * p.placement.width, p.gain_y * p.placement.height) for p in pastes])
    corner = for_boxes([(p.target[0] - p.gain_x * p.source[0], p.target[1] - p.gain_y * p.source[1]) for p in pastes])
    limit = for_boxes([p.target for p in pastes])
    low, high = fractions[:, :2] * gain + corner, fractions[:, 2:] * gain + corner
    whole = (high - low).prod(axis=1)
    low, high = np.maximum(low, limit[:, :2]), np.minimum(high, limit[:, 2:])
    return label_rows(classes, low, high, size)[rule.keeps(high - low, whole)]


def label_rows(classes: Float64Array, low: Float64Array, high: Float64Array, size: int) -> Float32Array:
    """Return labels, float32 (boxes, 5): class, cx, cy, w, h in 0..1; ``low`` and ``high`` are corners in px."""
    rows = np.concatenate([classes[:, None], (low + high) / (2 * size), (high - low) / size], axis=1)
    labels: Float32Array = rows.astype(np.float32)
    return labels
