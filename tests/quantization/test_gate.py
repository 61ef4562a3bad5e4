from __future__ import annotations

import pytest

from kubeyolo.config.schema import QuantizeConfig
from kubeyolo.errors import WorkError
from kubeyolo.evaluation.results import EvaluationResult
from kubeyolo.quantization.gate import ap_drop, check_accuracy, check_quantization
from kubeyolo.quantization.int8 import QuantizationFacts


def facts(quantized=57, int8_bytes=350):
    return QuantizationFacts(60, quantized, 1000, int8_bytes, 8, "minmax")


def result(ap):
    return EvaluationResult(numbers={"AP": ap}, split="val")


def test_limits_themselves_are_allowed():
    check_quantization(facts(), QuantizeConfig())


def test_too_few_quantized_convolutions():
    with pytest.raises(WorkError, match=r"56 of 60 convolutions are quantized \(93.3%\), required are 95.0%"):
        check_quantization(facts(quantized=56), QuantizeConfig())


def test_too_large_a_file():
    with pytest.raises(WorkError, match=r"0.351 of the float file's size \(351 of 1000 bytes\), allowed are 0.350"):
        check_quantization(facts(int8_bytes=351), QuantizeConfig())


def test_drop_is_in_points():
    assert ap_drop(result(0.5), result(0.4925)) == pytest.approx(0.75)
    assert ap_drop(result(0.5), result(0.51)) == pytest.approx(-1)
    assert check_accuracy(result(0.50), result(0.49), 1.0) == pytest.approx(1)


def test_too_large_a_drop():
    with pytest.raises(WorkError, match=r"AP 0.4880 is 1.20 points below float 0.5000, allowed are 1.00"):
        check_accuracy(result(0.5), result(0.488), 1.0)


def test_no_ground_truth_cannot_pass():
    with pytest.raises(WorkError, match="split 'val' has no ground truth"):
        check_accuracy(result(None), result(None), 1.0)
