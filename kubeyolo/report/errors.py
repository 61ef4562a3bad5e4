"""The errors of an evaluation in its report: kinds and costs, thresholds, slices, reliability, images, suspects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kubeyolo.arrays import Int64Array
from kubeyolo.evaluation.confusion import BACKGROUND
from kubeyolo.evaluation.error_analysis import ErrorAnalysis
from kubeyolo.evaluation.error_kinds import KINDS
from kubeyolo.evaluation.operating_points import GRID
from kubeyolo.evaluation.slices import SliceFamily
from kubeyolo.evaluation.suspects import SENTENCES
from kubeyolo.report.charts import Chart, Mark, Series, line_chart
from kubeyolo.report.class_curves import class_series
from kubeyolo.report.formats import number3
from kubeyolo.report.samples import OUTCOME_COLORS, DrawnSample, ErrorPictures, SampleImage, draw_within_budget

LARGEST_MATRIX = 12
"""Most classes whose confusion matrix is shown; with more classes, the most frequent confusions are listed."""

MOST_ROWS = 50
"""Rows of the lists of suspects and of confusions; the documents have all of them."""

_WORST_SIDE, _SUSPECT_SIDE = 760, 320
_WORST_BYTES, _SUSPECT_BYTES = 900_000, 300_000

_MEANINGS = dict(
    zip(
        KINDS,
        (
            "in the right place, but of another class",
            "of the right class, but with an IoU from .1 to .5",
            "of another class, and with an IoU from .1 to .5",
            "a second detection of a box",
            "in a place without an annotation",
            "a box that no detection found",
        ),
        strict=True,
    )
)


@dataclass(frozen=True)
class KindRow:
    """A row of the table of errors; ``share`` is the cost divided by the largest cost."""

    name: str
    meaning: str
    count: int | None
    confident: int | None
    cost: float | None
    share: float


@dataclass(frozen=True)
class SuspectRow:
    """A row of the list of suspects."""

    rank: int
    kind: str
    image: str
    annotated: str
    detected: str
    suspicion: float


@dataclass(frozen=True)
class ConfusionRow:
    """A class that was detected as another, and how often."""

    annotated: str
    detected: str
    count: int


@dataclass(frozen=True)
class ErrorsView:
    """The values that the template of the errors shows."""

    kinds: list[KindRow]
    charts: list[Chart]
    overall: str
    matrix: list[tuple[str, list[tuple[int, float]]]]
    columns: list[str]
    confusions: list[ConfusionRow]
    slices: list[SliceFamily]
    worst: list[DrawnSample]
    suspect_pictures: list[DrawnSample]
    suspects: list[SuspectRow]
    all_suspects: int
    sentences: list[tuple[str, str]]
    outcomes: dict[str, str]
    suspect_colors: dict[str, str]


def errors_view(analysis: ErrorAnalysis, confusion: Int64Array | None, pictures: ErrorPictures) -> ErrorsView:
    """Return what the report shows of an analysis; its size is bounded for any number of classes and errors."""
    names = [*analysis.classes, BACKGROUND]
    small = confusion is not None and len(names) <= LARGEST_MATRIX + 1
    kinds = {suspect.kind for suspect in analysis.suspects}
    return ErrorsView(
        kinds=_kind_rows(analysis),
        charts=[
            chart for chart in (_means_chart(analysis), _f1_chart(analysis), _reliability_chart(analysis)) if chart
        ],
        overall=_overall(analysis),
        matrix=_matrix_rows(confusion, names) if confusion is not None and small else [],
        columns=names if small else [],
        confusions=_confusions(confusion, names) if confusion is not None and not small else [],
        slices=analysis.slices,
        worst=_drawn(pictures.worst, _WORST_BYTES, _WORST_SIDE),
        suspect_pictures=_drawn(pictures.suspects, _SUSPECT_BYTES, _SUSPECT_SIDE),
        suspects=_suspect_rows(analysis),
        all_suspects=len(analysis.suspects),
        sentences=[(kind, text) for kind, text in SENTENCES.items() if kind in kinds],
        outcomes={name: OUTCOME_COLORS[name] for name in ("hit", "missed", "false alarm")},
        suspect_colors={"annotated": OUTCOME_COLORS["annotated"], "detected": OUTCOME_COLORS["false alarm"]},
    )


def _kind_rows(analysis: ErrorAnalysis) -> list[KindRow]:
    costs = analysis.costs
    largest = max([each.dAP50 or 0.0 for each in costs.kinds] + [1e-9])
    rows = [
        KindRow(
            each.kind,
            _MEANINGS[each.kind],
            each.count,
            each.confident,
            each.dAP50,
            max(0.0, (each.dAP50 or 0) / largest),
        )
        for each in costs.kinds
    ]
    both = (
        ("all false positives", "if every wrong detection were removed", costs.false_positives_dAP50),
        ("all false negatives", "if every box that was not found were removed", costs.false_negatives_dAP50),
    )
    return [*rows, *(KindRow(name, meaning, None, None, cost, 0.0) for name, meaning, cost in both)]


def _overall(analysis: ErrorAnalysis) -> str:
    point = analysis.points.overall
    if point.threshold is None:
        return "No box was found, so there is no best threshold."
    return (
        f"A single threshold for all classes is best at {point.threshold:.3f}: precision {number3(point.precision)}, "
        f"recall {number3(point.recall)}, F1 {number3(point.F1)}. The best threshold of each class is in the table of "
        "the classes, and in the bundle that is exported or published: kubeyolo predict --conf best uses it. "
        "Thresholds are chosen on this split, so other data may need others."
    )


def _means_chart(analysis: ErrorAnalysis) -> Chart | None:
    point = analysis.points.overall
    if point.threshold is None:
        return None
    series = [Series(name, GRID, values, i) for i, (name, values) in enumerate(analysis.points.means().items())]
    return line_chart(
        "confidence",
        "Precision, recall and F1 over confidence",
        series,
        x_label="confidence",
        label=f"Means over the classes; F1 of all detections is largest at {point.threshold:.3f}",
        of_shares=True,
        marks=[Mark(point.threshold, f"best {point.threshold:.2f}")],
        note="Means over the classes, at IoU .50. Dashed: the best threshold for all classes together.",
    )


def _f1_chart(analysis: ErrorAnalysis) -> Chart | None:
    f1 = analysis.points.F1
    rated = ~np.isnan(f1).any(axis=1) if len(f1) else np.zeros(0, np.bool_)
    if not rated.any():
        return None
    names = [name for name, is_rated in zip(analysis.classes, rated, strict=True) if is_rated]
    series, note = class_series(names, GRID, f1[rated])
    return line_chart(
        "class-f1",
        "F1 of each class over confidence",
        series,
        x_label="confidence",
        label=f"F1 over the confidence of {len(names)} classes",
        of_shares=True,
        note=note,
    )


def _reliability_chart(analysis: ErrorAnalysis) -> Chart | None:
    measured = analysis.reliability
    if measured.expected_calibration_error is None or measured.bias is None:
        return None
    rows = [(row.score, row.precision) for row in measured.bins if row.score is not None and row.precision is not None]
    series = [
        Series("perfect", (0.0, 1.0), (0.0, 1.0), None, faint=True),
        Series("measured", [score for score, _ in rows], [precision for _, precision in rows], 0, dots=True),
    ]
    more = "higher" if measured.bias > 0 else "lower"
    return line_chart(
        "reliability",
        "Share of right detections over their score",
        series,
        x_label="score",
        label=f"Expected calibration error {measured.expected_calibration_error:.3f}",
        of_shares=True,
        note=f"Expected calibration error {measured.expected_calibration_error:.3f}; scores are on average "
        f"{abs(measured.bias):.3f} {more} than the share of right detections (scores from {measured.lowest_score:g}).",
    )


def _matrix_rows(confusion: Int64Array, names: Sequence[str]) -> list[tuple[str, list[tuple[int, float]]]]:
    """Return a row for each annotated class: its counts, and each count as a share of the row."""
    totals = np.maximum(1, confusion.sum(axis=1))
    return [
        (name, [(int(count), round(float(count / totals[i]), 4)) for count in confusion[i]])
        for i, name in enumerate(names)
    ]


def _confusions(confusion: Int64Array, names: Sequence[str]) -> list[ConfusionRow]:
    """Return the most frequent confusions of two classes."""
    between = confusion[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    order = np.argsort(-between, axis=None, kind="stable")[:MOST_ROWS]
    pairs = [divmod(int(flat), len(between)) for flat in order] if between.size else []
    return [ConfusionRow(names[i], names[j], int(between[i, j])) for i, j in pairs if between[i, j] > 0]


def _suspect_rows(analysis: ErrorAnalysis) -> list[SuspectRow]:
    matches, classes = analysis.matches, analysis.classes
    rows = []
    for rank, suspect in enumerate(analysis.suspects[:MOST_ROWS], 1):
        d = suspect.detection
        annotated = "" if suspect.box < 0 else classes[matches.index.box_class[suspect.box]]
        detected = "" if d < 0 else f"{classes[matches.label[d]]} {matches.score[d]:.2f}"
        name = matches.index.file_name[suspect.image]
        rows.append(SuspectRow(rank, suspect.kind, name, annotated, detected, suspect.suspicion))
    return rows


def _drawn(samples: Sequence[SampleImage], budget: int, longest: int) -> list[DrawnSample]:
    return [group[0] for group in draw_within_budget([(sample,) for sample in samples], {}, budget, longest)]
