"""The report of quantize: float against int8, and the verdict of the gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kubeyolo.evaluation.results import EvaluationResult
from kubeyolo.report.charts import Chart, bar_chart
from kubeyolo.report.evaluation import number_rows
from kubeyolo.report.formats import number3, setting, signed_points, size_text
from kubeyolo.report.page import Stat, fact_rows, render, tone

LARGEST_BAR_CHART = 18
_GATE_FACTS = frozenset(
    {"convs", "quantized_convs", "float_bytes", "int8_bytes", "max_drop", "min_quantized_convs", "max_size_ratio"}
)


@dataclass(frozen=True)
class Comparison:
    """A value of float and int8, and int8 minus float; None where there is no ground truth."""

    name: str
    words: str
    before: float | None
    after: float | None

    @property
    def key(self) -> str:
        """Return the name, as templates of the 12 numbers call it."""
        return self.name

    @property
    def difference(self) -> float | None:
        """Return int8 minus float."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def tone(self) -> str:
        """Return the CSS class of the difference."""
        return tone(self.difference)


@dataclass(frozen=True)
class Check:
    """One condition of the gate: what was measured, what is allowed."""

    name: str
    measured: str
    allowed: str
    passed: bool


def quantization_report(
    float_result: EvaluationResult, int8_result: EvaluationResult, facts: Mapping[str, object]
) -> str:
    """Return the report of a quantization as one HTML page.

    Args:
        float_result: The float network on the validation split.
        int8_result: The quantized network on the same split.
        facts: ``convs``, ``quantized_convs``, ``float_bytes``, ``int8_bytes`` and the bounds ``max_drop`` (points),
            ``min_quantized_convs``, ``max_size_ratio`` (fractions) make the gate, those that are given; anything
            else is shown as it is. ``passed`` overrides the verdict that follows from the checks.
    """
    numbers = [
        Comparison(row.key, row.words, row.value, int8_result.numbers.get(row.key)) for row in number_rows(float_result)
    ]
    checks = gate_checks(numbers[0], facts)
    passed = bool(facts.get("passed", all(check.passed for check in checks)))
    classes = _class_comparisons(float_result, int8_result)
    chart = _class_chart(classes)
    failed = [check.name for check in checks if not check.passed]
    return render(
        "quantization.html",
        kind="quantization",
        title="Float against int8",
        lead="Post-training quantization to int8, measured on the images the float network was measured on.",
        passed=passed,
        verdict_heading="The int8 network passes the gate" if passed else "The int8 network fails the gate",
        verdict_text=_verdict_text(numbers[0], failed),
        stats=_stats(numbers[0], facts),
        checks=checks,
        numbers=numbers,
        per_class=classes,
        charts=[chart] if chart else [],
        facts=fact_rows({key: value for key, value in facts.items() if key not in _GATE_FACTS | {"passed"}}),
    )


def gate_checks(ap: Comparison, facts: Mapping[str, object]) -> list[Check]:
    """Return the checks whose numbers and bounds are among the facts."""
    checks = []
    drop, max_drop = ap.difference, _number(facts, "max_drop")
    if drop is not None and max_drop is not None:
        loss = max(0.0, -100 * drop)
        checks.append(Check("Loss of AP, in points", f"{loss:.2f}", f"{max_drop:.2f} at most", loss <= max_drop + 1e-9))
    convs, quantized = _number(facts, "convs"), _number(facts, "quantized_convs")
    least = _number(facts, "min_quantized_convs")
    if convs and quantized is not None and least is not None:
        share = quantized / convs
        text = f"{quantized:.0f} of {convs:.0f} ({100 * share:.1f} %)"
        checks.append(Check("Convolutions quantized", text, f"{100 * least:g} % at least", share >= least - 1e-9))
    before, after = _number(facts, "float_bytes"), _number(facts, "int8_bytes")
    largest = _number(facts, "max_size_ratio")
    if before and after is not None and largest is not None:
        ratio = after / before
        checks.append(Check("Size, int8 to float", f"{ratio:.3f}", f"{largest:g} at most", ratio <= largest + 1e-9))
    return checks


def _stats(ap: Comparison, facts: Mapping[str, object]) -> list[Stat]:
    stats = [
        Stat("AP float", number3(ap.before)),
        Stat("AP int8", number3(ap.after), f"{signed_points(ap.difference)} points"),
    ]
    before, after = _number(facts, "float_bytes"), _number(facts, "int8_bytes")
    if before and after is not None:
        note = f"from {size_text(before)}, {before / max(after, 1.0):.2f} times smaller"
        stats.append(Stat("int8 file", size_text(after), note))
    convs, quantized = _number(facts, "convs"), _number(facts, "quantized_convs")
    if convs and quantized is not None:
        stats.append(
            Stat("Convolutions", f"{100 * quantized / convs:.1f} %", f"{quantized:.0f} of {convs:.0f} in int8")
        )
    return stats


def _verdict_text(ap: Comparison, failed: list[str]) -> str:
    change = f"AP is {number3(ap.after)} after {number3(ap.before)}: {signed_points(ap.difference)} points."
    return f"{change} Not met: {', '.join(failed)}." if failed else change


def _class_comparisons(before: EvaluationResult, after: EvaluationResult) -> list[Comparison]:
    """Return AP of each class before and after, the largest losses first."""
    found = {row.name: row.AP for row in after.per_class}
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


def _number(facts: Mapping[str, object], key: str) -> float | None:
    value = facts.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"facts[{key!r}] is {setting(value)}, not a number")
    return float(value)
