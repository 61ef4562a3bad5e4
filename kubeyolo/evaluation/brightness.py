"""The brightness of the images of a split, from small versions of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from kubeyolo.arrays import Float64Array
from kubeyolo.data.decode import grey_values
from kubeyolo.data.headers import ImageFault
from kubeyolo.resources import usable_processors

if TYPE_CHECKING:
    from kubeyolo.data.dataset import Split

MOST_IMAGES = 500
"""Images whose brightness is measured, spread evenly over the split: every image is decoded once more for it."""


def image_brightness(split: Split, most: int = MOST_IMAGES) -> Float64Array:
    """Return the mean grey value of each image (I,), 0 is black and 255 white; NaN if it was not measured."""
    brightness = np.full(len(split), np.nan)
    chosen = np.unique(np.linspace(0, len(split) - 1, min(most, len(split))).round().astype(np.int64))

    def measure(i: int) -> float:
        # Orientation does not matter. Samples of more than 8 bits are mapped to grey values by the data set's levels.
        if split.levels is None:
            with suppress(ImageFault):
                return float(grey_values(split.read_bytes(i)).mean())
        return float(split.read_image(i).mean())

    with ThreadPoolExecutor(usable_processors(), thread_name_prefix="kubeyolo-brightness") as pool:
        brightness[chosen] = list(pool.map(measure, chosen.tolist()))
    return brightness
