"""Differences between the outputs of an exported file and of the trained network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kubeyolo.arrays import Float32Array
from kubeyolo.errors import WorkError


class RawNetwork(Protocol):
    """Maps images to raw levels, like a predictor."""

    def raw(self, images: Float32Array) -> list[Float32Array]:
        """Map images (N, 3, H, W) in 0..1 to a raw (N, na, ny, nx, 5+nc) array for each level."""


@dataclass(frozen=True)
class LevelParity:
    """Difference between two raw outputs of a level.

    Attributes:
        stride: Stride of the level.
        max_difference: max |exported − trained| over all images.
        max_value: max |trained|.
    """

    stride: int
    max_difference: float
    max_value: float

    @property
    def relative(self) -> float:
        """The largest difference relative to the largest value of the level."""
        return self.max_difference / self.max_value if self.max_value else self.max_difference


def compare_levels(
    trained: RawNetwork,
    exported: RawNetwork,
    images: Float32Array,
    strides: Sequence[int],
    name: str = "the exported file",
) -> list[LevelParity]:
    """Run both networks on the same images and compare every level: max |a − b| / max |b|.

    Args:
        trained: The reference b.
        exported: The network a that is checked.
        images: (N, 3, H, W) in 0..1: real images, letterboxed.
        strides: Stride of each level, for messages.
        name: Name of the exported file, for messages.

    Raises:
        WorkError: A level differs in shape.
    """
    levels = []
    for stride, expected, got in zip(strides, trained.raw(images), exported.raw(images), strict=True):
        if expected.shape != got.shape:
            raise WorkError(
                f"{name}: level of stride {stride} has shape {got.shape}, in the trained network {expected.shape}"
            )
        levels.append(LevelParity(stride, float(np.abs(got - expected).max()), float(np.abs(expected).max())))
    return levels
