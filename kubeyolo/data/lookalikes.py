"""Classes that look alike, for the generated data set: buttons that differ only in their holes.

All classes have the same outline, colours, textures and rotations, and their holes have about the same extent. In
training images of 256 pixels a button is about 30 to 70 pixels wide, and a hole 4 to 10: finding a button is easy,
telling its class is hard.
"""

from __future__ import annotations

import numpy as np

from kubeyolo.arrays import Float64Array, Pixels
from kubeyolo.data.scene import Canvas, Scene, polygon_mask

CLASSES = ("two-holes", "three-holes", "four-holes", "slot", "two-slots", "cross")

_OBJECTS = (2, 6)
_WIDTHS = (38.0, 88.0)
"""Diameters of buttons in an image of 320 pixels."""

_TRIES = 40
_HIDES = 0.1
_HOLE = 0.14
"""Radius of a hole, and half the width of a slot, as a fraction of the radius of the button."""

_TURN = np.linspace(0, 2 * np.pi, 48, endpoint=False)
_CIRCLE: Float64Array = np.stack([np.cos(_TURN), np.sin(_TURN)], 1)


def render_scene(rng: np.random.Generator, width: int, height: int) -> Scene:
    """Render an image of ``width`` x ``height`` pixels with 2 to 6 buttons."""
    canvas = Canvas(rng, width, height)
    unit = min(width, height) / 320
    for _ in range(int(rng.integers(_OBJECTS[0], _OBJECTS[1] + 1))):
        smallest, largest = _WIDTHS
        diameter = unit * smallest * (largest / smallest) ** rng.random()
        _place(canvas, int(rng.integers(len(CLASSES))), diameter)
    return canvas.finish()


def _place(canvas: Canvas, label: int, diameter: float) -> None:
    """Draw a button at a position where it hides little of the others; draw nothing without such a position."""
    rng = canvas.rng
    tilt, turn = rng.uniform(0.85, 1.0), rng.uniform(0, 2 * np.pi, 2)
    # The disc is seen a little from the side; holes turn on it.
    view = _rotation(turn[0]) @ np.diag([1.0, tilt]) @ _rotation(turn[1]) * (diameter / 2)
    outline = _CIRCLE @ view.T
    low = outline.min(0) - 1
    width, height = (int(extent) for extent in np.ceil(np.ptp(outline, axis=0)) + 3)

    def mask(points: Float64Array) -> Pixels:
        return polygon_mask(points @ view.T - low, width, height)

    body = mask(_CIRCLE)
    for _ in range(_TRIES):
        left = int(rng.integers(0, canvas.size[0] - width + 1))
        top = int(rng.integers(0, canvas.size[1] - height + 1))
        if canvas.most_hidden(body, left, top) > _HIDES:
            continue
        number = canvas.begin(label)
        canvas.drawn[number] = int((body > 127).sum())
        colour = canvas.colour_for(body, left, top)
        canvas.draw(body, left, top, number, colour)
        rim = mask(0.84 * _CIRCLE) - mask(0.76 * _CIRCLE)
        canvas.mark(rim, left, top, _shade(colour, rng.uniform(0.1, 0.3)))
        dark = _shade(colour, rng.uniform(0.4, 0.65))
        for points in holes(label):
            canvas.mark(mask(points), left, top, dark)
        return


def holes(label: int) -> list[Float64Array]:
    """Return the outlines (K, 2) of the holes of a class, in a button of radius 1."""
    name = CLASSES[label]
    if name == "slot":
        return [_bar(0.42, 0.0)]
    if name == "two-slots":
        return [_bar(0.34, -0.21), _bar(0.34, 0.21)]
    if name == "cross":
        return [_bar(0.4, 0.0), _bar(0.4, 0.0)[:, ::-1]]
    count = {"two-holes": 2, "three-holes": 3, "four-holes": 4}[name]
    turns = np.arange(count) * (2 * np.pi / count)
    radius = 0.28 if count < 4 else 0.3
    return [_HOLE * _CIRCLE + radius * np.array([np.cos(turn), np.sin(turn)]) for turn in turns]


def _bar(half: float, y: float) -> Float64Array:
    """Return the outline of a slot of length 2 ``half`` at a height, with round ends."""
    ends = np.sign(_CIRCLE[:, :1]) * (half - _HOLE)
    return 0.8 * _HOLE * _CIRCLE + np.concatenate([ends, np.full_like(ends, y)], 1)


def _rotation(angle: float) -> Float64Array:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _shade(colour: Float64Array, share: float) -> Float64Array:
    """Return a bright colour darker, or a dark colour lighter, by a share of the way to black or white."""
    goal = 0.0 if colour.mean() > 110 else 255.0
    return colour + share * (goal - colour)
