from __future__ import annotations

import numpy as np
import pytest

from kubeyolo.config.schema import ExportConfig
from kubeyolo.errors import WorkError
from kubeyolo.export.parity import compare_levels
from kubeyolo.steps.export import judge

IMAGES = np.zeros((4, 3, 32, 32), np.float32)


class Fixed:
    def __init__(self, *levels):
        self.levels = [np.asarray(level, np.float32) for level in levels]

    def raw(self, images):
        return self.levels


def check(trained, exported, strides, rtol=1e-4):
    levels = compare_levels(trained, exported, IMAGES, strides, "model.onnx")
    return judge({"model.onnx": {f"stride {each.stride}": each.relative for each in levels}}, settings(rtol))


def settings(rtol):
    return ExportConfig(parity_rtol=rtol, parity_images=4)


def test_difference_is_relative_to_the_largest_value_of_its_level():
    trained = Fixed([1.0, -200.0], [2.0, 0.5])
    levels = compare_levels(trained, Fixed([1.01, -200.0], [2.0, 0.50005]), IMAGES, (8, 16))
    assert [level.relative for level in levels] == pytest.approx([5e-5, 2.5e-5], rel=1e-2)
    assert [level.max_value for level in levels] == [200, 2]


def test_too_large_a_difference_names_level_and_figure():
    verdict = check(Fixed([1.0], [2.0]), Fixed([1.0], [2.005]), (8, 16))
    assert [one.passed for one in verdict.checks] == [True, False]
    with pytest.raises(WorkError, match=r"^model.onnx: level of stride 16 differs .* by 0.0025 .* 4 images.* 0.0001"):
        verdict.enforce()


def test_levels_of_all_formats_are_judged():
    verdict = judge({"mindir": {"stride 8": 2e-3}, "onnx": {"stride 8": 3e-3, "stride 16": 0.0}}, settings(1e-4))
    assert [one.passed for one in verdict.checks] == [False, False, True]
    assert "mindir: level of stride 8" in verdict.failures and "onnx: level of stride 8" in verdict.failures
    assert judge({}, settings(1e-4)).passed


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(WorkError, match="stride 8 differs .* by nan"):
        check(Fixed([1.0]), Fixed([np.nan]), (8,)).enforce()


def test_other_shapes_are_refused():
    with pytest.raises(WorkError, match=r"stride 8 has shape \(2,\), in the trained network \(1,\)"):
        check(Fixed([1.0]), Fixed([1.0, 2.0]), (8,))


def test_a_level_of_zeros_is_compared_by_its_difference():
    assert compare_levels(Fixed([0.0]), Fixed([0.0]), IMAGES, (8,))[0].relative == 0
    assert check(Fixed([0.0]), Fixed([0.0]), (8,)).passed
    assert not check(Fixed([0.0]), Fixed([0.1]), (8,)).passed
