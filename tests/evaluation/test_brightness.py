"""The brightness of stored images: the mean of their grey values, for every format, of a bounded number of images."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from kubeyolo.data.decode import decode_image
from kubeyolo.evaluation.brightness import image_brightness


class Images:
    """A split of images in memory, of the greys 0, 10, 20, … with a dark left half, in several formats."""

    levels: tuple[float, float] | None = None

    def __init__(self, count: int, formats: tuple[str, ...] = ("JPEG", "PNG", "BMP")) -> None:
        self.files: list[bytes] = []
        self.decoded: list[int] = []
        for number in range(count):
            pixels = np.full((64, 96, 3), 10 * number, np.uint8)
            pixels[:, :48] //= 2
            data = io.BytesIO()
            Image.fromarray(pixels).save(data, formats[number % len(formats)])
            self.files.append(data.getvalue())

    def __len__(self) -> int:
        return len(self.files)

    def read_bytes(self, i: int) -> bytes:
        return self.files[i]

    def read_image(self, i: int) -> np.ndarray:
        self.decoded.append(i)
        return decode_image(self.files[i], 1, None)


def test_brightness_is_the_mean_grey_value_without_decoding_whole_images() -> None:
    split = Images(20)
    measured = image_brightness(split)  # type: ignore[arg-type]
    assert measured == pytest.approx([7.5 * number for number in range(20)], abs=1.0)
    assert split.decoded == []


def test_sets_with_levels_are_decoded_with_them() -> None:
    split = Images(3)
    split.levels = (0.0, 4095.0)
    image_brightness(split)  # type: ignore[arg-type]
    assert sorted(split.decoded) == [0, 1, 2]


def test_of_many_images_some_are_measured_spread_over_the_split() -> None:
    measured = image_brightness(Images(25), most=5)  # type: ignore[arg-type]
    assert np.flatnonzero(~np.isnan(measured)).tolist() == [0, 6, 12, 18, 24]
    assert len(image_brightness(Images(0))) == 0  # type: ignore[arg-type]
