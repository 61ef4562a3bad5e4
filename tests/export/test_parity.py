from __future__ import annotations

import numpy as np
import pytest

from kubeyolo.config.schema import ExportConfig
from kubeyolo.errors import WorkError
from kubeyolo.evaluation.limits import check_ap_parity
from kubeyolo.evaluation.predictor import Thresholds
from kubeyolo.export.parity import compare_detections, compare_levels, suppressed
from kubeyolo.steps.export import Parity, judge

IMAGES = np.zeros((4, 3, 32, 32), np.float32)


class Fixed:
    def __init__(self, *levels):
        self.levels = [np.asarray(level, np.float32) for level in levels]

    def raw(self, images):
        return self.levels


def check(trained, exported, strides, rtol=1e-4):
    levels = compare_levels(trained, exported, IMAGES, strides, "model.onnx")
    return judge(Parity({"model.onnx": {f"stride {each.stride}": each.relative for each in levels}}), settings(rtol))


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
    levels = {"mindir": {"stride 8": 2e-3}, "onnx": {"stride 8": 3e-3, "stride 16": 0.0}}
    verdict = judge(Parity(levels), settings(1e-4))
    assert [one.passed for one in verdict.checks] == [False, False, True]
    assert "mindir: level of stride 8" in verdict.failures and "onnx: level of stride 8" in verdict.failures
    assert judge(Parity(), settings(1e-4)).passed


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


LIMITS = Thresholds(0.05, 0.65, 300, True)
FOUR = np.array(
    [
        [20, 20, 10, 10, 0.9, 1, 0],
        [22, 20, 10, 10, 0.8, 1, 0],  # its IoU with the first is 2/3: it is suppressed
        [40, 40, 10, 10, 0.7, 0, 1],
        [60, 40, 20, 10, 0.0501, 0, 1],
    ],
    np.float32,
)
"""Predictions of an image: centre, size, objectness, scores of two classes."""


def match(exported, trained=FOUR, limits=LIMITS):
    rows = [suppressed(np.array(exported, np.float32), limits)]
    return compare_detections([trained], rows, limits, (64, 64))


def changed(row, column, value):
    other = FOUR.copy()
    other[row, column] += value
    return other


def test_the_same_detections_match_one_to_one():
    same = match(FOUR)
    assert (same.detections, same.unmatched, same.distance, same.image) == (3, 0, 0, None)
    moved = match(changed(2, 0, 0.4))
    assert moved.unmatched == 0 and moved.distance == pytest.approx(0.4, abs=1e-5)


@pytest.mark.parametrize(
    ("exported", "unmatched"),
    [
        (changed(2, 0, 0.6), 2),  # moved too far: missing in one network, and added in the other
        (FOUR[[0, 1, 3]], 1),
        (changed(2, 6, -1), 1),
        (np.concatenate([FOUR, [[10, 50, 6, 6, 0.5, 1, 0]]]), 1),
        (np.concatenate([FOUR, FOUR[2:3] + [[0, 0, 0, 0, -0.1, 1, 0]]]), 1),
    ],
)
def test_a_detection_without_a_partner_is_counted(exported, unmatched):
    found = match(exported)
    assert (found.unmatched, found.image) == (unmatched, 0)
    check = judge(Parity({}, {"onnx": found}, ["a.jpg"]), settings(1e-4)).checks[0]
    assert not check.passed and f"onnx: {unmatched} detections" in check.message and "first on a.jpg" in check.message


def test_rounding_at_a_threshold_is_no_difference():
    assert match(changed(3, 4, -0.0002)).unmatched == 0, "its score is as good as the threshold"
    assert match(changed(3, 4, -0.01)).unmatched == 0, "a low score in one network, at the threshold in the other"
    assert match(changed(2, 4, -0.69)).unmatched == 1
    at_threshold = Thresholds(0.05, 2 / 3 - 1e-5, 300, True)
    assert match(changed(1, 0, -0.01), limits=Thresholds(0.05, 2 / 3, 300, True)).unmatched == 0
    assert match(changed(1, 0, 0.01), limits=at_threshold).unmatched == 0
    assert match(FOUR, limits=Thresholds(0.05, 0.65, 2, True)).unmatched == 0


def test_ap_may_differ_by_a_thousandth():
    assert check_ap_parity("onnx", 0.5, 0.501).passed and check_ap_parity("onnx", None, None).passed
    for ap, trained in ((0.5, 0.5011), (0.5011, 0.5), (None, 0.2)):
        check = check_ap_parity("onnx", ap, trained)
        assert not check.passed and "at most 0.001 is allowed" in check.message
