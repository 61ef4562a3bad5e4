"""The report of quantize: float compared with int8, and the verdict of the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubeyolo.evaluation.limits import Verdict
from kubeyolo.evaluation.paired_speed import PairedSpeed
from kubeyolo.evaluation.results import EvaluationResult
from kubeyolo.formats import share_text, size_text
from kubeyolo.report.charts import Chart, bar_chart
from kubeyolo.report.evaluation import number_rows
from kubeyolo.report.formats import number3, signed_points
from kubeyolo.report.page import Stat, fact_rows, render

if TYPE_CHECKING:
    from kubeyolo.quantization.int8 import QuantizationFacts
    from kubeyolo.quantization.sensitivity import LayerCost

LARGEST_BAR_CHART = 18


@dataclass(frozen=True)
class Comparison:
    """A metric of the float and of the int8 network; None if there is no ground truth."""

    name: str
    words: str
    before: float | None
    after: float | None

    @property
    def difference(self) -> float | None:
        """Return int8 minus float."""
        return None if self.before is None or self.after is None else self.after - self.before


def quantization_report(
    float_result: EvaluationResult,
    int8_result: EvaluationResult | None,
    verdict: Verdict,
    facts: QuantizationFacts | None,
    costs: Sequence[LayerCost] = (),
    speed: PairedSpeed | None = None,
    warnings: Sequence[str] = (),
) -> str:
    """Return the report of a quantization as one HTML page.

    Args:
        float_result: The float network on the validation split.
        int8_result: The quantized network on the same split; None if nothing could be measured.
        verdict: Whether the quantized network is good enough.
        facts: Counts of convolutions, sizes of the files, and how the ranges were chosen; None without int8 network.
        costs: What each layer costs in int8, the most expensive first.
        speed: The speed of both networks on this machine.
        warnings: Sentences at the top of the page.
    """
    after = int8_result.numbers if int8_result else {}
    numbers = [Comparison(row.key, row.words, row.value, after.get(row.key)) for row in number_rows(float_result)]
    classes = _class_comparisons(float_result, int8_result)
    chart = _class_chart(classes) if int8_result else None
    failed = [check.name for check in verdict.checks if not check.passed]
    kept = facts.float_layers if facts else ()
    return render(
        "quantization.html",
        kind="quantization",
        title="Float compared with int8",
        lead=f"{_method(facts)} to int8. Both networks were evaluated on the same images." if facts else "",
        warnings=warnings,
        verdict=verdict,
        verdict_heading=_heading(verdict, int8_result),
        verdict_text=_verdict_text(numbers[0], failed),
        stats=_stats(numbers[0], facts, speed) if facts else [],
        numbers=numbers,
        per_class=classes,
        charts=[chart] if chart else [],
        layers=[(cost, cost.name in kept) for cost in costs],
        facts=fact_rows(_settings(facts, speed)) if facts else [],
    )


def _method(facts: QuantizationFacts) -> str:
    return "Post-training quantization" if facts.calibration_images else "Quantization-aware training"


def _heading(verdict: Verdict, int8_result: EvaluationResult | None) -> str:
    if int8_result is None:
        return "Nothing can be measured: there is no int8 network"
    return "The int8 network passes the gate" if verdict.passed else "The int8 network fails the gate"


def _stats(ap: Comparison, facts: QuantizationFacts, speed: PairedSpeed | None) -> list[Stat]:
    note = f"from {size_text(facts.float_bytes)}, {facts.float_bytes / max(facts.int8_bytes, 1):.2f} times smaller"
    stats = [
        Stat("AP float", number3(ap.before)),
        Stat("AP int8", number3(ap.after), f"{signed_points(ap.difference)} points"),
        Stat("int8 file", size_text(facts.int8_bytes), note),
        Stat("Convolutions", share_text(facts.quantized_share), f"{facts.quantized_convs} of {facts.convs} in int8"),
    ]
    if speed:
        change = f"{speed.float_ms:.1f} ms in float, {speed.int8_ms:.1f} ms in int8"
        stats.append(Stat("Speed, int8 to float", f"{speed.ratio:.2f}", change))
    return stats


def _settings(facts: QuantizationFacts, speed: PairedSpeed | None) -> dict[str, object]:
    """Return how the network was quantized, and how its speed was measured."""
    return {
        **({"calibration_images": facts.calibration_images} if facts.calibration_images else {}),
        "calibration": facts.calibration,
        "runtime": facts.runtime,
        "float_layers": ", ".join(facts.float_layers) or "none",
        **({"speed": speed.words} if speed else {}),
    }


def _verdict_text(ap: Comparison, failed: list[str]) -> str:
    change = f"AP: float {number3(ap.before)}, int8 {number3(ap.after)}, {signed_points(ap.difference)} points."
    return f"{change} Failed: {', '.join(failed)}." if failed else change


def _class_comparisons(before: EvaluationResult, after: EvaluationResult | None) -> list[Comparison]:
    """Return the AP of each class for the float and the int8 network, the largest losses first."""
    found = {row.name: row.AP for row in after.per_class} if after else {}
    rows = [Comparison(row.name, "", row.AP, found.get(row.name)) for row in before.per_class]
    return sorted(rows, key=lambda row: (row.difference is None, row.difference or 0.0))


def _class_chart(classes: list[Comparison]) -> Chart | None:
    rated = [row for row in classes if row.difference is not None][:LARGEST_BAR_CHART]
    if not rated:
        return None
    total = sum(1 for row in classes if row.difference is not None)
    return bar_chart(
        "class-ap",
        "AP of each class, float and int8",
        [row.name for row in rated],
        [("float", [row.before or 0.0 for row in rated]), ("int8", [row.after or 0.0 for row in rated])],
        x_label="average precision",
        decimals=3,
        label="; ".join(f"{row.name}: float {number3(row.before)}, int8 {number3(row.after)}" for row in rated),
        note=f"The {len(rated)} largest losses of {total} classes." if total > len(rated) else "",
    )
