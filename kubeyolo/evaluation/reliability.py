"""Reliability of scores: how often detections with a score are right, and the expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kubeyolo.evaluation.matching import Matches

BINS = 10
LOWEST_SCORE = 0.05
"""Detections below this score are left out: there are so many of them that they would hide all others."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Detections with scores from ``low`` to ``high``: their number, mean score, and the share that found a box."""

    low: float
    high: float
    detections: int
    score: float | None
    precision: float | None


@dataclass(frozen=True)
class Reliability:
    """Bins of equal width over the score, and the expected calibration error, None without detections.

    The error is the mean distance between score and precision of the bins, weighted by detections (Naeini et al.,
    2015); ``bias`` is the mean score minus the precision of all detections: above 0 the network is overconfident.
    """

    bins: list[ReliabilityBin]
    expected_calibration_error: float | None
    bias: float | None
    lowest_score: float = LOWEST_SCORE


def reliability(matches: Matches) -> Reliability:
    """Compare the scores of detections with how often they find a box of their class at IoU .5."""
    counted = ~matches.ignored & (matches.score >= LOWEST_SCORE)
    score, hit = matches.score[counted], matches.box[counted] >= 0
    bins = np.clip((score * BINS).astype(np.int64), 0, BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(bins, weights=score, minlength=BINS) / count
        precision = np.bincount(bins, weights=hit, minlength=BINS) / count
    rows = [
        ReliabilityBin(
            i / BINS, (i + 1) / BINS, int(n), *((float(mean[i]), float(precision[i])) if n else (None, None))
        )
        for i, n in enumerate(count)
    ]
    if not len(score):
        return Reliability(rows, None, None)
    distance = float(np.nansum(np.abs(mean - precision) * count) / len(score))
    return Reliability(rows, distance, float(score.mean() - hit.mean()))
