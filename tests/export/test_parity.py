from __future__ import annotations

import numpy as np
import pytest

from kubeyolo.errors import WorkError
from kubeyolo.export.parity import check_parity

IMAGES = np.zeros((4, 3, 32, 32), np.float32)


class Fixed:
    def __init__(self, *levels):
        self.levels = [np.asarray(level, np.float32) for level in levels]

    def raw(self, images):
        return self.levels


def test_difference_is_relative_to_the_largest_value_of_its_level():
    trained = Fixed([1.0, -200.0], [2.0, 0.5])
    levels = check_parity(trained, Fixed([1.01, -200.0], [2.0, 0.50005]), IMAGES, (8, 16))
    assert [level.relative for level in levels] == pytest.approx([5e-5, 2.5e-5], rel=1e-2)
    assert [level.max_value for level in levels] == [200, 2]


def test_too_large_a_difference_names_level_and_figure():
    with pytest.raises(WorkError, match=r"model.onnx: level of stride 16 differs .* by 0.0025 .* 4 images.* 0.0001"):
        check_parity(Fixed([1.0], [2.0]), Fixed([1.0], [2.005]), IMAGES, (8, 16), name="model.onnx")


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(WorkError, match="stride 8 differs .* by nan"):
        check_parity(Fixed([1.0]), Fixed([np.nan]), IMAGES, (8,))


def test_other_shapes_are_refused():
    with pytest.raises(WorkError, match=r"stride 8 has shape \(2,\), the network \(1,\)"):
        check_parity(Fixed([1.0]), Fixed([1.0, 2.0]), IMAGES, (8,))


def test_a_level_of_zeros_is_compared_by_its_difference():
    assert check_parity(Fixed([0.0]), Fixed([0.0]), IMAGES, (8,))[0].relative == 0
    with pytest.raises(WorkError):
        check_parity(Fixed([0.0]), Fixed([0.1]), IMAGES, (8,))
