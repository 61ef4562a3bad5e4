"""Generated predictions of a detector with 25,200 boxes and 80 classes, as of an image of 640 x 640 pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kubeyolo.arrays import Float32Array

CLASSES = 80
SIDE = 640
STRIDES = (8, 16, 32)
BOXES = sum(3 * (SIDE // stride) ** 2 for stride in STRIDES)


def trained(rng: np.random.Generator) -> Float32Array:
    """Return (boxes, 5 + classes) predictions like those of a trained detector.

    Most objectness is far below .001, in long tails; around each object the boxes of several cells and anchors agree
    on its place and its class, and less on similar classes.
    """
    centre = np.concatenate([_cells(stride) for stride in STRIDES])
    size = 10 ** rng.normal(1.6, 0.35, (BOXES, 2))
    objectness = 10 ** rng.normal(-4.6, 0.7, BOXES)
    scores = 10 ** rng.normal(-3.5, 0.6, (BOXES, CLASSES))
    for _ in range(rng.integers(3, 25)):
        place, sides = rng.uniform(40, SIDE - 40, 2), 10 ** rng.uniform(1.2, 2.4, 2)
        near = np.argsort(np.square(centre - place).sum(1))[: rng.integers(40, 160)]
        agreement = np.exp(-np.arange(len(near)) / (len(near) / 3)) * rng.uniform(0.5, 1)
        centre[near] = place + rng.normal(0, 0.06, (len(near), 2)) * sides
        size[near] = sides * np.exp(rng.normal(0, 0.12, (len(near), 2)))
        objectness[near] = np.maximum(objectness[near], agreement * rng.uniform(0.2, 1, len(near)))
        labels = rng.choice(CLASSES, 4, replace=False)
        scores[near[:, None], labels] = rng.uniform(0.3, 1, (len(near), 1)) * np.array([0.95, 0.1, 0.05, 0.02])
    probabilities = np.clip(np.concatenate([objectness[:, None], scores], axis=1), 0, 1)
    return np.concatenate([centre, size, probabilities], axis=1).astype(np.float32)


def uniform(rng: np.random.Generator) -> Float32Array:
    """Return (boxes, 5 + classes) predictions with random boxes and random probabilities."""
    centre, size = rng.uniform(0, SIDE, (BOXES, 2)), rng.uniform(8, 160, (BOXES, 2))
    return np.concatenate([centre, size, rng.uniform(0, 1, (BOXES, 1 + CLASSES))], axis=1).astype(np.float32)


KINDS: dict[str, Callable[[np.random.Generator], Float32Array]] = {"trained": trained, "uniform": uniform}


def _cells(stride: int) -> np.ndarray:
    """Return the centres (3 anchors x rows x columns, 2) of the cells of a level."""
    places = np.arange(stride / 2, SIDE, stride)
    columns, rows = np.meshgrid(places, places)
    return np.tile(np.stack([columns.ravel(), rows.ravel()], axis=1), (3, 1))
