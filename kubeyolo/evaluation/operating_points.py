"""Precision, recall and F1 over the confidence threshold, and the threshold of each class with the largest F1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from kubeyolo.arrays import BoolArray, Float64Array, Int64Array
from kubeyolo.errors import InputError, first_problem
from kubeyolo.evaluation.matching import Matches
from kubeyolo.evaluation.results import BestThresholds

GRID = np.arange(101) / 100
"""Thresholds of the curves."""

FALLBACK = 0.25
"""Threshold if no detection finds a box, so that there is no best threshold."""

BEST_THRESHOLDS = "best_thresholds"
"""Key of the best thresholds in records and in results, and by runtime in the metrics of published bundles."""

_DECIMALS = 6


@dataclass(frozen=True)
class BestPoint:
    """Threshold of a class with the largest F1, and the numbers there (0..1); None if none of its boxes is found."""

    name: str
    threshold: float | None
    precision: float | None
    recall: float | None
    F1: float | None


@dataclass(frozen=True, eq=False)
class OperatingPoints:
    """Curves over the thresholds :data:`GRID`, and the best points.

    Attributes:
        precision: (classes, 101), NaN where a class has no detection with such a score.
        recall: (classes, 101), NaN for classes without boxes.
        F1: (classes, 101), NaN for classes without boxes.
        best: The best point of each class.
        overall: The best point of a single threshold for all classes together.
    """

    precision: Float64Array
    recall: Float64Array
    F1: Float64Array
    best: list[BestPoint]
    overall: BestPoint

    @property
    def thresholds(self) -> BestThresholds | None:
        """The thresholds that a bundle keeps; None if no box was found."""
        if self.overall.threshold is None:
            return None
        own = {point.name: point.threshold for point in self.best if point.threshold is not None}
        return BestThresholds(overall=self.overall.threshold, classes=own)

    def by_class(self) -> Float64Array:
        """Return the threshold (classes,) of each class; the overall threshold for classes without their own."""
        overall = FALLBACK if self.overall.threshold is None else self.overall.threshold
        return np.array([overall if point.threshold is None else point.threshold for point in self.best])

    def means(self) -> dict[str, Float64Array]:
        """Return the means (101,) of precision, recall and F1 over the classes; NaN where no class has a value."""
        return {name: _mean(getattr(self, name)) for name in ("precision", "recall", "F1")}

    def document(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return curves and best points in the form of the stored analysis."""
        means = {name: _plain(values) for name, values in self.means().items()}
        curves = {
            name: {"precision": _plain(self.precision[i]), "recall": _plain(self.recall[i]), "F1": _plain(self.F1[i])}
            for i, name in enumerate(classes)
            if not np.isnan(self.F1[i]).all()
        }
        return {"overall": self.overall, "best": self.best, "grid": _plain(GRID), "mean": means, "classes": curves}


def operating_points(matches: Matches, classes: Sequence[str]) -> OperatingPoints:
    """Return precision, recall and F1 of each class over the threshold, and the best thresholds.

    A detection counts at a threshold if its score is equal or larger. Detections in crowds do not count.
    """
    counted = ~matches.ignored
    label, score, hit = matches.label[counted], matches.score[counted], matches.box[counted] >= 0
    totals = matches.totals
    boxes = np.where(totals > 0, totals, np.nan)[:, None]
    detected, found = _counts(label, score, matches.classes), _counts(label[hit], score[hit], matches.classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = found / detected
        recall = found / boxes
        f1 = 2 * found / (boxes + detected)
    best = _best_points(label, score, hit, totals, classes)
    everything = np.zeros(len(label), np.int64)
    (overall,) = _best_points(everything, score, hit, np.array([totals.sum()]), ("all classes",))
    return OperatingPoints(precision, recall, f1, best, overall)


def kept_thresholds(metrics: Mapping[str, Any], runtime: str) -> BestThresholds | None:
    """Return the best thresholds of a runtime in the metrics of a bundle, published or not; None if it has none.

    Raises:
        InputError: They are not scores from 0 to 1.
    """
    by_runtime, measured = metrics.get(BEST_THRESHOLDS) or {}, metrics.get(runtime) or {}
    kept = by_runtime.get(runtime) or measured.get(BEST_THRESHOLDS)
    try:
        return BestThresholds.model_validate(kept) if kept else None
    except ValidationError as error:
        raise InputError(f"{BEST_THRESHOLDS} of the runtime {runtime}: {first_problem(error)}") from error


def _counts(label: Int64Array, score: Float64Array, classes: int) -> Int64Array:
    """Return the number of detections (classes, 101) with at least the score of each grid point."""
    bins = np.searchsorted(GRID, score, side="right") - 1
    counts = np.bincount(label * len(GRID) + np.clip(bins, 0, None), minlength=classes * len(GRID))
    return counts.reshape(classes, len(GRID))[:, ::-1].cumsum(axis=1)[:, ::-1]


def _best_points(
    label: Int64Array, score: Float64Array, hit: BoolArray, totals: Int64Array, names: Sequence[str]
) -> list[BestPoint]:
    """Return the best point of each class; detections by descending score."""
    order = np.argsort(label, kind="stable")
    label, score, hit = label[order], score[order], hit[order]
    start = np.searchsorted(label, np.arange(len(names)))
    found = np.cumsum(np.r_[0, hit])
    found = found[1:] - found[start[label]]
    detected = np.arange(len(label)) - start[label] + 1
    f1 = 2 * found / np.maximum(1, detected + totals[label])
    # A threshold keeps all detections of equal scores or none of them.
    is_last = np.r_[(label[1:] != label[:-1]) | (score[1:] != score[:-1]), True] if len(label) else hit
    usable = np.flatnonzero(is_last & (found > 0) & (totals[label] > 0))
    ranked = usable[np.lexsort((usable, -f1[usable], label[usable]))]
    chosen = ranked[np.unique(label[ranked], return_index=True)[1]]
    points = [BestPoint(name, None, None, None, None) for name in names]
    for at in chosen.tolist():
        number = int(label[at])
        has_next = at + 1 < len(label) and label[at + 1] == number
        # Halfway to the next lower score, so that rounded scores stay on their side.
        threshold = (score[at] + score[at + 1]) / 2 if has_next else score[at] - 0.5 * 10**-_DECIMALS
        points[number] = BestPoint(
            names[number],
            round(max(0.0, float(threshold)), _DECIMALS + 1),
            float(found[at] / detected[at]),
            float(found[at] / totals[number]),
            float(f1[at]),
        )
    return points


def _mean(values: Float64Array) -> Float64Array:
    present = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: Float64Array = np.where(present, values, 0.0).sum(axis=0) / present.sum(axis=0)
    return mean


def _plain(values: Float64Array) -> list[float | None]:
    """Return values with four decimals, None for NaN."""
    return [None if value != value else value for value in np.round(values, 4).tolist()]
