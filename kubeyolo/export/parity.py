"""Whether an exported file computes what the trained network computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kubeyolo.arrays import Float32Array
from kubeyolo.errors import WorkError

DEFAULT_RTOL = 1e-4


class RawNetwork(Protocol):
    """Anything that maps images to raw levels, as a predictor does."""

    def raw(self, images: Float32Array) -> list[Float32Array]:
        """Map images (N, 3, H, W) in 0..1 to one raw (N, na, ny, nx, 5+nc) array a level."""


@dataclass(frozen=True)
class LevelParity:
    """How far two raw outputs of one level are apart.

    Attributes:
        stride: Of the level.
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


def check_parity(
    trained: RawNetwork,
    exported: RawNetwork,
    images: Float32Array,
    strides: Sequence[int],
    rtol: float = DEFAULT_RTOL,
    name: str = "the exported file",
) -> list[LevelParity]:
    """Run both on the same images and compare every level: max |a − b| / max |b| must not exceed ``rtol``.

    Args:
        trained: The reference b.
        exported: What is checked, a.
        images: (N, 3, H, W) in 0..1: real, letterboxed ones.
        strides: One a level, for messages.
        rtol: Largest difference relative to the level's largest value.
        name: Of the exported file, for messages.

    Raises:
        WorkError: A level differs by more, or in shape, or is not finite; the message has the level and the figure.
    """
    levels = []
    for stride, expected, got in zip(strides, trained.raw(images), exported.raw(images), strict=True):
        if expected.shape != got.shape:
            raise WorkError(f"{name}: level of stride {stride} has shape {got.shape}, the network {expected.shape}")
        level = LevelParity(stride, float(np.abs(got - expected).max()), float(np.abs(expected).max()))
        if not level.relative <= rtol:  # also when it is not a number
            raise WorkError(
                f"{name}: level of stride {stride} differs from the trained network by {level.relative:.3g} of its "
                f"largest value on {len(images)} images, allowed are {rtol:g}; the file was not published"
            )
        levels.append(level)
    return levels
