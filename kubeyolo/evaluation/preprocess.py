"""From images to the input of a network, and from boxes in that input back to pixels of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kubeyolo.arrays import Float32Array, Pixels
from kubeyolo.bundle import Preprocessing
from kubeyolo.data.letterbox import LetterboxGeometry, letterbox


@dataclass(frozen=True)
class Prepared:
    """A letterboxed image and where the original lies in it.

    Attributes:
        image: uint8 RGB (H, W, 3), of the network's size.
        place: Where the original lies in it.
    """

    image: Pixels
    place: LetterboxGeometry


def prepare(image: Pixels, size: tuple[int, int], preprocessing: Preprocessing) -> Prepared:
    """Letterbox one RGB image (h, w, 3) to ``size`` (height, width)."""
    return Prepared(*letterbox(image, size, fill=preprocessing.fill))


def network_input(prepared: Sequence[Prepared], preprocessing: Preprocessing) -> Float32Array:
    """Return (N, 3, H, W) float32 in 0..1, contiguous."""
    stacked = np.stack([one.image for one in prepared]).transpose(0, 3, 1, 2)
    return np.divide(stacked, np.float32(preprocessing.divisor), dtype=np.float32, order="C")


def original_pixels(rows: Float32Array, prepared: Prepared) -> Float32Array:
    """Return rows x1, y1, x2, y2, score, class with corners moved to the original image and clipped to it."""
    place = prepared.place
    width, height = place.image_width, place.image_height
    moved = rows.copy()
    moved[:, :4] = np.clip(place.back(rows[:, :4]), 0, (width, height, width, height))
    return moved
