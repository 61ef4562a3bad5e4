from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from kubeyolo.quantization.int8 import CalibrationImages
from tests.export.tiny_detector import manifest


class NumberedSplit:
    """Image i is i everywhere, 40 x 20 pixels."""

    def __init__(self, count: int) -> None:
        self.index = range(count)

    def read_image(self, number: int):
        return np.full((20, 40, 3), number, np.uint8)


def drawn(split, count, seed=0):
    return [round(float(image[0, 0, 48, 64]) * 255) for image in CalibrationImages(split, manifest(), count, seed)]


def test_images_are_letterboxed_network_inputs():
    images = CalibrationImages(NumberedSplit(1), manifest(), 1)
    assert len(images) == 1
    assert images[0].shape == (1, 3, 96, 128) and images[0].dtype == np.float32
    assert images[0][0, 0, 0, 0] == np.float32(114 / 255)


def test_draw_is_without_replacement_and_the_same_for_a_seed():
    first = drawn(NumberedSplit(50), 20)
    assert len(set(first)) == 20
    assert drawn(NumberedSplit(50), 20) == first
    assert drawn(NumberedSplit(50), 20, seed=1) != first


def test_a_small_split_gives_all_it_has():
    assert drawn(NumberedSplit(3), 64) == [0, 1, 2]
    assert len(CalibrationImages(SimpleNamespace(index=range(0)), manifest(), 4)) == 0
