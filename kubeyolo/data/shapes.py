"""The shapes of the generated data set: classes that differ only in shape.

Colours, textures and rotations have the same distribution for all classes. Some images have a tight group of small
objects with one crowd box.
"""

from __future__ import annotations

import numpy as np

from kubeyolo.arrays import Float64Array, Pixels
from kubeyolo.data.scene import Canvas, Scene, polygon_mask

CLASSES = ("disc", "triangle", "cross")
SMALLEST = 10
"""Longer side of the smallest object, in pixels; the largest object takes half of the shorter side of its image."""

_OBJECTS = (3, 8)
_CROWD_SHARE = 0.1
_TRIES = 30
_HIDES = 0.55
_COVER_SHARE = 0.04


def render_scene(rng: np.random.Generator, width: int, height: int) -> Scene:
    """Render an image of ``width`` x ``height`` pixels with 3 to 8 objects and sometimes a crowd."""
    canvas = Canvas(rng, width, height)
    largest = min(width, height) / 2
    count = int(rng.integers(_OBJECTS[0], _OBJECTS[1] + 1))
    # Spread over the logarithm of the size, with fewer very small objects, and with both ends of the range included.
    sizes = SMALLEST * (largest / SMALLEST) ** np.clip(1.06 * rng.beta(1.6, 1.2, count) - 0.03, 0, 1)
    # Small objects mostly lie above large objects: otherwise they would rarely be visible.
    for i in np.argsort(-sizes * rng.uniform(0.6, 1.6, count)):
        _place(canvas, int(rng.integers(len(CLASSES))), float(sizes[i]))
    if rng.random() < _CROWD_SHARE:
        _place_crowd(canvas, int(rng.integers(len(CLASSES))))
    return canvas.finish()


def _place(canvas: Canvas, label: int, size: float) -> None:
    """Draw an object at a position where it hides little of other objects; draw nothing without such a position."""
    rng = canvas.rng
    mask = shape_mask(rng, label, size)
    height, width = mask.shape
    # Some objects are cut by the border, and a few cover a different object, which is then not annotated.
    over = 0.25 if rng.random() < 0.1 else 0.0
    covers = rng.random() < _COVER_SHARE and canvas.labels != [] and canvas.visible[-1] > 0
    for _ in range(_TRIES):
        left = int(rng.integers(-int(over * width), canvas.size[0] - width + int(over * width) + 1))
        top = int(rng.integers(-int(over * height), canvas.size[1] - height + int(over * height) + 1))
        if covers:
            y, x = np.argwhere(canvas.owner == len(canvas.labels) - 1).mean(0)
            left = int(np.clip(x - width // 2, 0, canvas.size[0] - width))
            top = int(np.clip(y - height // 2, 0, canvas.size[1] - height))
        if covers or canvas.most_hidden(mask, left, top) <= _HIDES:
            number = canvas.begin(label)
            canvas.drawn[number] = int((mask > 127).sum())
            canvas.draw(mask, left, top, number, canvas.colour_for(mask, left, top))
            return


def _place_crowd(canvas: Canvas, label: int) -> None:
    """Draw a tight group of objects, smaller than all objects with their own box, on free background."""
    rng = canvas.rng
    side = int(rng.integers(28, 48))
    for _ in range(_TRIES):
        left = int(rng.integers(0, canvas.size[0] - side + 1))
        top = int(rng.integers(0, canvas.size[1] - side + 1))
        if (canvas.owner[top : top + side, left : left + side] >= 0).any():
            continue
        number = canvas.begin(label)
        canvas.crowds.add(number)
        for _ in range(int(side * side / 60)):
            mask = shape_mask(rng, label, rng.uniform(6, 9))
            x, y = (int(rng.integers(0, side - extent + 1)) for extent in mask.shape[::-1])
            canvas.draw(mask, left + x, top + y, number, canvas.colour_for(mask, left + x, top + y))
        canvas.drawn[number] = canvas.visible[number]
        return


def shape_mask(rng: np.random.Generator, label: int, size: float) -> Pixels:
    """Return the mask (H, W) 0..255 of a rotated shape whose longer side is ``size`` pixels, cropped to its extent."""
    outline = _outline(rng, label)
    angle = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = outline @ rotation.T
    points -= points.min(0)
    points *= (size - 1) / points.max()
    width, height = (int(np.ceil(extent)) + 3 for extent in points.max(0))
    mask = polygon_mask(points + 1, width, height)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _outline(rng: np.random.Generator, label: int) -> Float64Array:
    """Return the corners (K, 2) of a shape of about unit radius."""
    if CLASSES[label] == "disc":
        turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        return np.stack([np.cos(turn), rng.uniform(0.75, 1) * np.sin(turn)], 1)
    if CLASSES[label] == "triangle":
        turn = np.deg2rad(np.array([90, 210, 330]) + rng.uniform(-12, 12, 3))
        return np.stack([np.cos(turn), np.sin(turn)], 1)
    a = rng.uniform(0.26, 0.34)  # half the width of an arm
    quarter = np.array([[a, a], [a, 1], [-a, 1]])
    turns = [np.array([[c, -s], [s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    return np.concatenate([quarter @ turn.T for turn in turns])
