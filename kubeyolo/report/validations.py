"""Validations while training, for the report of a training: AP by epoch, and AP of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kubeyolo.report.charts import Chart, Mark, Series, line_chart
from kubeyolo.report.formats import integer, number3
from kubeyolo.training.history import HistoryRow, best_validation

COLORED_CLASSES = 8
"""Most classes with a curve each; if there are more, the classes with the lowest and the highest AP have a curve."""


@dataclass(frozen=True)
class ClassRow:
    """A row of the table of classes: AP after the best epoch and after the last epoch with a validation, 0..1."""

    name: str
    best: float | None
    last: float | None


def validation_charts(validations: Sequence[HistoryRow]) -> list[Chart]:
    """Return the charts of AP by epoch, with the best epoch marked; empty if there is no validation."""
    if not validations:
        return []
    best = best_validation(validations)
    marks = [Mark(best.epoch + 1.0, f"best: epoch {integer(best.epoch + 1)}")] if best else []
    highest = best.ap if best else 0.0
    charts = [
        line_chart(
            "validation-ap",
            "AP on the validation split",
            [_curve(validations, "ap", "AP", 0), _curve(validations, "ap50", "AP50", 1)],
            x_label="epoch",
            label=f"AP and AP50 over epochs; highest AP {highest:.3f}" + (f", {marks[0].label}" if marks else ""),
            y_limits=(0.0, 1.08),
            marks=marks,
        )
    ]
    rows = class_rows(validations)
    if rows:
        charts.append(_class_chart(validations, rows, marks))
    return charts


def class_rows(validations: Sequence[HistoryRow]) -> list[ClassRow]:
    """Return AP of each class, from high to low; empty if no validation has it."""
    rated = [row for row in validations if row.ap_by_class]
    if not rated:
        return []
    best, last = (best_validation(rated) or rated[-1]).ap_by_class or {}, rated[-1].ap_by_class or {}
    rows = [ClassRow(name, best.get(name), last.get(name)) for name in {**best, **last}]
    return sorted(rows, key=lambda row: (-(row.best or 0.0), row.name))


def _class_chart(validations: Sequence[HistoryRow], rows: Sequence[ClassRow], marks: Sequence[Mark]) -> Chart:
    """Draw AP of the classes by epoch: all classes, or the classes with the highest and the lowest AP."""
    is_whole, half = len(rows) <= COLORED_CLASSES, COLORED_CLASSES // 2
    shown = rows if is_whole else [*rows[:half], *rows[-half:]]
    series = []
    for color, row in enumerate(shown):
        points = [(each.epoch + 1.0, (each.ap_by_class or {}).get(row.name)) for each in validations]
        known = [(x, y) for x, y in points if y is not None]
        series.append(Series(row.name, [x for x, _ in known], [y for _, y in known], color, dots=True))
    note = "" if is_whole else f"The {half} classes with the highest and the {half} with the lowest AP of {len(rows)}."
    return line_chart(
        "validation-ap-classes",
        "AP of each class",
        series,
        x_label="epoch",
        label="AP of classes over epochs; " + ", ".join(f"{row.name} {number3(row.best)}" for row in shown),
        y_limits=(0.0, 1.08),
        marks=marks,
        note=note,
    )


def _curve(validations: Sequence[HistoryRow], key: str, name: str, color: int) -> Series:
    points = [(row.epoch + 1.0, getattr(row, key)) for row in validations if getattr(row, key) is not None]
    return Series(name, [x for x, _ in points], [float(y) for _, y in points], color, dots=True)
