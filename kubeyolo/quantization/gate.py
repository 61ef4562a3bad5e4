"""What an int8 model must hold before it is published."""

from __future__ import annotations

from kubeyolo.config.schema import QuantizeConfig
from kubeyolo.errors import WorkError
from kubeyolo.evaluation.results import EvaluationResult
from kubeyolo.quantization.int8 import QuantizationFacts

POINTS = 100
_SLACK = 1e-9


def check_quantization(facts: QuantizationFacts, config: QuantizeConfig) -> None:
    """Refuse a model that is hardly quantized or hardly smaller.

    Raises:
        WorkError: Too few convolutions are int8, or the file is too large.
    """
    if facts.quantized_share < config.min_quantized_convs:
        raise WorkError(
            f"int8: {facts.quantized_convs} of {facts.convs} convolutions are quantized "
            f"({facts.quantized_share:.1%}), required are {config.min_quantized_convs:.1%} "
            "(quantize.min_quantized_convs)"
        )
    if facts.size_ratio > config.max_size_ratio:
        raise WorkError(
            f"int8: the file has {facts.size_ratio:.3f} of the float file's size ({facts.int8_bytes} of "
            f"{facts.float_bytes} bytes), allowed are {config.max_size_ratio:.3f} (quantize.max_size_ratio)"
        )


def ap_drop(float_result: EvaluationResult, int8_result: EvaluationResult) -> float:
    """Return how many AP points (AP · 100) int8 loses against float; negative when it gains.

    Raises:
        WorkError: The split has no ground truth, so there is no AP to compare.
    """
    before, after = float_result.numbers["AP"], int8_result.numbers["AP"]
    if before is None or after is None:
        raise WorkError(f"int8: split {float_result.split!r} has no ground truth, the loss of AP cannot be measured")
    return (before - after) * POINTS


def check_accuracy(float_result: EvaluationResult, int8_result: EvaluationResult, max_drop: float) -> float:
    """Return the drop in AP points.

    Raises:
        WorkError: It is larger than ``max_drop``, or cannot be measured.
    """
    drop = ap_drop(float_result, int8_result)
    if drop > max_drop + _SLACK:
        raise WorkError(
            f"int8: AP {int8_result.numbers['AP']:.4f} is {drop:.2f} points below float "
            f"{float_result.numbers['AP']:.4f}, allowed are {max_drop:.2f} (quantize.max_drop); use more calibration "
            "images or another quantize.calibration"
        )
    return drop
