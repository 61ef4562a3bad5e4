from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from kubeyolo.quantization.calibration import CalibrationImages, CalibrationSet, count_kinds
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


class DrawnSplit(NumberedSplit):
    """Images with the given pixels."""

    def __init__(self, pictures):
        super().__init__(len(pictures))
        self._pictures = pictures

    def read_image(self, number: int):
        return self._pictures[number]


def test_flat_and_grey_images_are_counted_and_named():
    rng = np.random.default_rng(0)
    colours = [rng.integers(0, 256, (20, 40, 3), np.uint8) for _ in range(2)]
    grey = np.repeat(rng.integers(0, 256, (20, 40, 1), np.uint8), 3, axis=2)
    flat = np.full((20, 40, 3), (200, 10, 10), np.uint8)
    kinds = count_kinds(CalibrationImages(DrawnSplit([*colours, grey, flat, flat]), manifest(), 64))
    assert kinds == CalibrationSet(images=5, flat=2, grey=1)
    few, flats, greys = kinds.warnings
    assert few.startswith("only 5 calibration images") and "quantize.calibration_images" in few
    assert flats.startswith("2 of 5 calibration images are flat") and greys.startswith("1 of 5 calibration images is")


def test_enough_images_in_colour_have_no_warnings():
    assert CalibrationSet(images=16).warnings == []
