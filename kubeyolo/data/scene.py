"""An image of a generated data set while it is drawn, and the objects that are visible in it at the end."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kubeyolo.arrays import BoolArray, Float64Array, Pixels
from kubeyolo.data.texture import background, contrasting_colour, fill

MOST_HIDDEN = 0.7
"""An object of which a larger share is hidden is not annotated."""

_SHIFT = 4
"""Fractional bits of the corners of polygons."""


@dataclass(frozen=True)
class SceneObject:
    """An annotated object: class number; left, top, width and height of its visible part; its visible pixels."""

    label: int
    xywh: tuple[int, int, int, int]
    visible: BoolArray  # (height, width) of the box
    hidden: float
    crowd: bool


@dataclass(frozen=True)
class Scene:
    """An image (H, W, 3) RGB and its annotated objects."""

    image: Pixels
    objects: list[SceneObject]


class Canvas:
    """The image while it is drawn, and the object that owns each pixel (-1: background)."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        self.rng = rng
        self.image = background(rng, width, height)
        self.owner = np.full((height, width), -1, np.int32)
        self.labels: list[int] = []
        self.drawn: list[int] = []  # pixels of each object before it was covered or cut
        self.visible: list[int] = []  # pixels of each object that are left
        self.crowds: set[int] = set()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.owner.shape[1], self.owner.shape[0]

    def begin(self, label: int) -> int:
        """Return the number of a new object."""
        self.labels.append(label)
        self.drawn.append(0)
        self.visible.append(0)
        return len(self.labels) - 1

    def window(self, mask: Pixels, left: int, top: int) -> tuple[tuple[slice, slice], Pixels]:
        """Return the part of the canvas under a mask at a position, and the part of the mask on the canvas."""
        width, height = self.size
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + mask.shape[1], width), min(top + mask.shape[0], height)
        return (slice(y0, y1), slice(x0, x1)), mask[y0 - top : y1 - top, x0 - left : x1 - left]

    def most_hidden(self, mask: Pixels, left: int, top: int) -> float:
        """Return the largest hidden share of all objects, the new object included, if a mask is drawn at a position."""
        where, part = self.window(mask, left, top)
        solid = part > 127
        shares = [1 - np.count_nonzero(solid) / np.count_nonzero(mask > 127)]
        for number, count in self._covered(where, solid):
            gone = 1 - (self.visible[number] - count) / self.drawn[number]
            shares.append(1.0 if number in self.crowds else gone)
        return max(shares)

    def _covered(self, where: tuple[slice, slice], solid: BoolArray) -> list[tuple[int, int]]:
        """Return the objects that opaque pixels cover, and the number of covered pixels of each object."""
        counts = np.bincount(self.owner[where][solid] + 1, minlength=1)[1:]
        return [(int(number), int(counts[number])) for number in np.flatnonzero(counts)]

    def draw(self, mask: Pixels, left: int, top: int, number: int, colour: Float64Array) -> None:
        """Paint a mask (0..255) at a position, as the object ``number``."""
        where, part = self.window(mask, left, top)
        paint = fill(self.rng, colour, mask.shape[1], mask.shape[0])
        paint = paint[where[0].start - top :, where[1].start - left :][: part.shape[0], : part.shape[1]]
        alpha = part[:, :, None].astype(np.float32) / 255
        self.image[where] = self.image[where] * (1 - alpha) + paint * alpha
        solid = part > 127
        for other, count in self._covered(where, solid):
            self.visible[other] -= count
        self.owner[where][solid] = number
        self.visible[number] += int(np.count_nonzero(solid))

    def mark(self, mask: Pixels, left: int, top: int, colour: Float64Array) -> None:
        """Paint a mask (0..255) of one colour on an object; it belongs to the object under it."""
        where, part = self.window(mask, left, top)
        alpha = part[:, :, None].astype(np.float32) / 255
        self.image[where] = self.image[where] * (1 - alpha) + colour.astype(np.float32) * alpha

    def colour_for(self, mask: Pixels, left: int, top: int) -> Float64Array:
        """Return a colour that stands out from the pixels under a mask."""
        where, part = self.window(mask, left, top)
        under = self.image[where][part > 127]
        return contrasting_colour(self.rng, under.mean(0) if len(under) else self.image.mean((0, 1)))

    def finish(self) -> Scene:
        """Return the image, with grain, and its annotated objects."""
        width, height = self.size
        grain = 4 * self.rng.random((height, width, 1), np.float32) - 2
        return Scene(np.clip(self.image + grain, 0, 255).astype(np.uint8), _annotated(self))


def polygon_mask(points: Float64Array, width: int, height: int) -> Pixels:
    """Return the mask (H, W) 0..255 of a polygon with corners (K, 2) in pixels, with smooth edges."""
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round(points * 2**_SHIFT).astype(np.int32)], 255, cv2.LINE_AA, _SHIFT)
    return mask


def _annotated(canvas: Canvas) -> list[SceneObject]:
    """Return the objects that are visible enough, with tight boxes around their visible pixels."""
    objects = []
    for number, label in enumerate(canvas.labels):
        hidden = 1 - canvas.visible[number] / canvas.drawn[number]
        if hidden > MOST_HIDDEN:
            continue
        visible = canvas.owner == number
        rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
        y, x = int(rows[0]), int(columns[0])
        h, w = int(rows[-1]) - y + 1, int(columns[-1]) - x + 1
        part = visible[y : y + h, x : x + w]
        objects.append(SceneObject(label, (x, y, w, h), part, hidden, number in canvas.crowds))
    return objects
