"""The report of evaluate: the 12 COCO metrics, classes, precision-recall curves, errors, samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kubeyolo.arrays import Int64Array
from kubeyolo.evaluation.error_analysis import ErrorAnalysis
from kubeyolo.evaluation.intervals import LEAST_IMAGES, LEVEL_TEXT, RESAMPLES
from kubeyolo.evaluation.limits import number_warnings
from kubeyolo.evaluation.results import COCO_NUMBERS, ClassResult, EvaluationResult, number_line
from kubeyolo.report.charts import Chart, bar_chart, histogram, line_chart
from kubeyolo.report.class_curves import class_series
from kubeyolo.report.errors import errors_view
from kubeyolo.report.formats import integer, number3
from kubeyolo.report.page import Stat, render
from kubeyolo.report.samples import (
    BYTE_BUDGET,
    NO_PICTURES,
    ErrorPictures,
    SampleImage,
    class_colors,
    draw_within_budget,
)

LARGEST_BAR_CHART = 24


@dataclass(frozen=True)
class NumberRow:
    """One of the 12 metrics: its key, its description by pycocotools, its value."""

    key: str
    words: str
    value: float | None


def evaluation_report(
    result: EvaluationResult,
    samples: Sequence[tuple[SampleImage, SampleImage]] = (),
    title: str = "Evaluation",
    analysis: ErrorAnalysis | None = None,
    confusion: Int64Array | None = None,
    pictures: ErrorPictures = NO_PICTURES,
) -> str:
    """Return the report of an evaluation as one HTML page.

    Args:
        result: The metrics of the evaluation.
        samples: Each image twice: with its annotated boxes, and with the detected boxes.
        title: Heading of the page.
        analysis: The analysis of the errors; without it the page has only the metrics.
        confusion: Counts (classes + 1, classes + 1): annotated class in rows, detected class in columns.
        pictures: The images with the most errors, and cut-outs of suspects.
    """
    colors = class_colors([row.name for row in result.per_class], [sample for pair in samples for sample in pair])
    return render(
        "evaluation.html",
        kind="evaluation",
        title=title,
        lead=_lead(result),
        stats=[
            Stat("AP", number3(result.numbers.get("AP")), "IoU .50 to .95"),
            Stat("AP50", number3(result.numbers.get("AP50")), "IoU .50"),
            Stat("AP75", number3(result.numbers.get("AP75")), "IoU .75"),
            Stat("AR100", number3(result.numbers.get("AR100")), "100 detections per image"),
        ],
        warnings=[*number_warnings(result.numbers), *result.notes],
        numbers=number_rows(result),
        intervals=interval_text(result),
        per_class=sorted(result.per_class, key=lambda row: -(row.AP if row.AP is not None else -1.0)),
        best={} if analysis is None else {point.name: point for point in analysis.points.best},
        errors=None if analysis is None else errors_view(analysis, confusion, pictures),
        charts=_charts(result),
        pairs=draw_within_budget(samples, colors, BYTE_BUDGET if analysis is None else BYTE_BUDGET // 2),
        colors=colors,
        crowd=any(box.crowd for pair in samples for sample in pair for box in sample.boxes),
    )


def number_rows(result: EvaluationResult) -> list[NumberRow]:
    """Return the 12 metrics in the order of pycocotools, as it describes them, and those with an additional limit."""
    rows = []
    for number in (*COCO_NUMBERS, *result.additional()):
        value = {**result.numbers, **result.additional_numbers}.get(number.key)
        rows.append(NumberRow(number.key, number_line(number, value).rpartition(" = ")[0].strip(), value))
    return rows


def interval_text(result: EvaluationResult) -> str:
    """Return a sentence with the intervals of AP and AP50; empty if they are not known."""
    found = result.resamples.intervals() if result.resamples else {}
    texts = [f"{key} {number3(low)} to {number3(high)}" for key, (low, high) in found.items()]
    if not texts or result.resamples is None:
        return ""
    images = result.resamples.images_with_objects
    few = "" if images >= LEAST_IMAGES else ", which are too few to judge by the interval"
    return (
        f"{LEVEL_TEXT} interval, from {integer(RESAMPLES)} resamples of the images: {', '.join(texts)}; "
        f"{integer(images)} images have objects{few}."
    )


def _lead(result: EvaluationResult) -> str:
    images = f"{integer(result.images)} images" + (f" of the split {result.split}" if result.split else "")
    size = f" at {result.image_size[1]} × {result.image_size[0]} pixels" if result.image_size else ""
    runtime = f" by {result.runtime}" if result.runtime else ""
    return f"{images} with {integer(result.boxes)} boxes; {integer(result.detections)} detections{size}{runtime}."


def _charts(result: EvaluationResult) -> list[Chart]:
    charts = [_curve_chart(result)] if result.curves else []
    rated = [row for row in result.per_class if row.AP is not None]
    rated.sort(key=lambda row: -(row.AP or 0.0))
    if rated:
        charts.append(_class_chart(rated) if len(rated) <= LARGEST_BAR_CHART else _spread_chart(rated))
    return charts


def _class_chart(rated: Sequence[ClassResult]) -> Chart:
    return bar_chart(
        "class-ap",
        "AP and AP50 of each class",
        [row.name for row in rated],
        [("AP", [row.AP or 0.0 for row in rated]), ("AP50", [row.AP50 or 0.0 for row in rated])],
        x_label="average precision",
        label="; ".join(f"{row.name}: AP {number3(row.AP)}, AP50 {number3(row.AP50)}" for row in rated),
        decimals=3,
    )


def _spread_chart(rated: Sequence[ClassResult]) -> Chart:
    """Draw the distribution of AP over the classes, if there are too many for one bar each."""
    ap, ap50 = np.array([row.AP or 0.0 for row in rated]), np.array([row.AP50 or 0.0 for row in rated])
    return histogram(
        "class-ap",
        "Share of classes by AP and AP50",
        [("AP", ap), ("AP50", ap50)],
        np.linspace(0.0, 1.0, 21),
        x_label="average precision",
        label=f"Histogram of AP over {len(rated)} classes: median {np.median(ap):.3f}, AP50 {np.median(ap50):.3f}",
    )


def _curve_chart(result: EvaluationResult) -> Chart:
    """Draw precision over recall at IoU .50."""
    recall = np.linspace(0.0, 1.0, len(next(iter(result.curves.values()))))
    series, note = class_series(list(result.curves), recall, np.array(list(result.curves.values())))
    return line_chart(
        "precision-recall",
        "Precision over recall at IoU .50",
        series,
        x_label="recall",
        label=f"Precision over recall of {len(result.curves)} classes; AP50 {number3(result.numbers.get('AP50'))}",
        of_shares=True,
        note=note,
    )
