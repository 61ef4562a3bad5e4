"""Colours and textures of the generated data set, the same for objects and backgrounds."""

from __future__ import annotations

import cv2
import numpy as np

from kubeyolo.arrays import Float32Array, Float64Array

_LEAST_CONTRAST = 80.0  # Euclidean distance in RGB, 0..255 each


def random_colour(rng: np.random.Generator) -> Float64Array:
    """Return an RGB colour of any brightness, mostly with moderate saturation."""
    return np.clip(rng.uniform(30, 225) + rng.normal(0, 38, 3), 10, 245)


def contrasting_colour(rng: np.random.Generator, other: Float64Array) -> Float64Array:
    """Return a random colour that differs visibly from ``other``."""
    while True:
        colour = random_colour(rng)
        if np.linalg.norm(colour - other) >= _LEAST_CONTRAST:
            return colour


def fill(rng: np.random.Generator, colour: Float64Array, width: int, height: int) -> Float32Array:
    """Return a texture (H, W, 3) with a given mean colour: plain, a gradient, stripes or noise."""
    change = rng.normal(0, 14, 3).astype(np.float32)
    kind = rng.integers(4)
    if kind == 0:
        weight = np.zeros((height, width), np.float32)
    elif kind == 1:
        weight = gradient(rng, width, height)
    elif kind == 2:
        weight = stripes(rng, width, height)
    else:
        weight = noise(rng, width, height, cells=4)
    return np.asarray(colour.astype(np.float32) + weight[:, :, None] * change, np.float32)


def background(rng: np.random.Generator, width: int, height: int) -> Float32Array:
    """Return a background (H, W, 3): a texture over a gradual change of colour, with thin clutter on it."""
    first = random_colour(rng)
    change = np.asarray(np.clip(first + rng.normal(0, 35, 3), 0, 255) - first, np.float32)
    weight = gradient(rng, width, height) if rng.random() < 0.4 else noise(rng, width, height, cells=3)
    image = first.astype(np.float32) + weight[:, :, None] * change
    grain = rng.uniform(12, 36) * (noise(rng, width, height, cells=int(rng.integers(8, 40))) - 0.5)
    if rng.random() < 0.3:
        grain += rng.uniform(8, 20) * (stripes(rng, width, height) - 0.5)
    image += grain[:, :, None]
    for _ in range(int(rng.integers(3, 12))):
        _clutter(rng, image)
    return np.clip(image, 0, 255)


def gradient(rng: np.random.Generator, width: int, height: int) -> Float32Array:
    """Return a ramp (H, W) from 0 to 1 in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.ogrid[:height, :width]
    ramp = np.cos(angle) * x + np.sin(angle) * y
    ramp -= ramp.min()
    return np.asarray(ramp / max(ramp.max(), 1.0), np.float32)


def stripes(rng: np.random.Generator, width: int, height: int) -> Float32Array:
    """Return waves (H, W) from 0 to 1 in a random direction, with wavelengths of 5 to 24 pixels."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(5, 24)
    y, x = np.ogrid[:height, :width]
    phase = (np.cos(angle) * x + np.sin(angle) * y) * (2 * np.pi / period)
    return np.asarray(0.5 + 0.5 * np.sin(phase + rng.uniform(0, 2 * np.pi)), np.float32)


def noise(rng: np.random.Generator, width: int, height: int, cells: int) -> Float32Array:
    """Return smooth noise (H, W) in 0..1 with about ``cells`` hills across, and a finer octave."""
    total = np.zeros((height, width), np.float32)
    for octave, share in ((1, 0.7), (3, 0.3)):
        grid = rng.random((cells * octave, cells * octave), np.float32)
        total += share * cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    return total


def _clutter(rng: np.random.Generator, image: Float32Array) -> None:
    """Draw a thin line, an arc or a few specks that are not objects."""
    height, width = image.shape[:2]
    x, y = int(rng.integers(width)), int(rng.integers(height))
    under = image[y, x].astype(np.float64)
    colour = tuple(float(value) for value in np.clip(under + rng.normal(0, 30, 3), 0, 255))
    kind = rng.integers(3)
    if kind == 0:
        cv2.line(image, (x, y), (int(rng.integers(width)), int(rng.integers(height))), colour, 1)
    elif kind == 1:
        axes = (int(rng.integers(15, width // 2)), int(rng.integers(15, height // 2)))
        start = float(rng.uniform(0, 360))
        cv2.ellipse(image, (x, y), axes, float(rng.uniform(0, 180)), start, start + 120, colour, 1)
    else:
        for dx, dy in rng.integers(-20, 21, (8, 2)):
            cv2.circle(image, (x + int(dx), y + int(dy)), 1, colour, -1)
