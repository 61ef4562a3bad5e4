"""Gates of the steps, and numbers that are measured once."""

from __future__ import annotations

import pytest

from kubeyolo.config.load import load_config
from kubeyolo.errors import WorkError
from kubeyolo.evaluation.results import EvaluationResult
from kubeyolo.steps.detection import kept_result, recalled_result, settings_digest
from kubeyolo.steps.evaluate import check_gate


def result(ap: float | None) -> EvaluationResult:
    return EvaluationResult(numbers={"AP": ap}, curves={"cat": [0.5] * 101}, images=3)


def test_the_gate_lets_good_networks_through() -> None:
    check_gate(result(0.5), 0.5, "m")
    check_gate(result(0.0), 0.0, "m")
    check_gate(result(None), 0.0, "m")


@pytest.mark.parametrize(("ap", "words"), [(0.4321, "AP is 0.4321"), (None, "AP is not defined")])
def test_the_gate_names_both_numbers(ap: float | None, words: str) -> None:
    with pytest.raises(WorkError, match=rf"m: {words}.*evaluate\.min_ap = 0\.5"):
        check_gate(result(ap), 0.5, "m")


def test_a_kept_result_is_recalled_for_the_same_settings_alone() -> None:
    config = load_config()
    metrics = {"onnx": kept_result(result(0.5), "digest", config)}
    assert "cat" not in metrics["onnx"]["curves"]
    recalled = recalled_result(metrics, "onnx", settings_digest("digest", config))
    assert recalled is not None and recalled.numbers == {"AP": 0.5}
    other = load_config(sets=["evaluate.iou_threshold=0.5"])
    assert recalled_result(metrics, "onnx", settings_digest("digest", other)) is None
    assert recalled_result(metrics, "onnx", settings_digest("other", config)) is None
    assert recalled_result({}, "onnx", "x") is None


def test_a_gate_does_not_change_numbers() -> None:
    config, gated = load_config(), load_config(sets=["evaluate.min_ap=0.5"])
    metrics = {"onnx": kept_result(result(0.5), "digest", config)}
    assert recalled_result(metrics, "onnx", settings_digest("digest", gated)) is not None
    assert metrics["onnx"] == kept_result(result(0.5), "digest", gated)
