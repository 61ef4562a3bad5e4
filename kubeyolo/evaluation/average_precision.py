"""COCO's average precision of many groups of detections at once: classes, or slices of classes."""

from __future__ import annotations

import numpy as np

from kubeyolo.arrays import BoolArray, Float64Array, Int64Array

RECALL_POINTS = np.linspace(0.0, 1.0, 101)
"""Recalls at which COCO's evaluation reads the precision."""


def average_precisions(group: Int64Array, hit: BoolArray, totals: Int64Array) -> Float64Array:
    """Return the average precision (G,) of each group: precision at 101 recalls, made monotone; NaN without boxes.

    Args:
        group: Group of each detection (D,), 0 to G - 1; detections by descending score, without ignored ones.
        hit: Whether each detection (D,) found a box.
        totals: Number of boxes of each group (G,).
    """
    order = np.argsort(group, kind="stable")
    sorted_group, sorted_hit = group[order], hit[order]
    groups = len(totals)
    start = np.searchsorted(sorted_group, np.arange(groups))
    hits = np.flatnonzero(sorted_hit)
    of = sorted_group[hits]
    first = np.searchsorted(of, np.arange(groups))
    found = np.bincount(of, minlength=groups)
    precision = (np.arange(len(hits)) - first[of] + 1) / (hits - start[of] + 1)
    # The largest precision at this or a higher recall of the group: groups are kept apart by an offset.
    offset = 2.0 * (groups - 1 - of)
    monotone = np.maximum.accumulate((precision + offset)[::-1])[::-1] - offset
    wanted = _needed(totals)
    place = np.minimum(first[:, None] + np.maximum(wanted, 1) - 1, max(0, len(hits) - 1))
    values = monotone[place] if len(hits) else np.zeros(wanted.shape)
    reached = np.maximum(wanted, 1) <= found[:, None]
    result: Float64Array = np.where(totals > 0, np.where(reached, values, 0.0).mean(axis=1), np.nan)
    return result


def _needed(totals: Int64Array) -> Int64Array:
    """Return the number of boxes (G, 101) that must be found for each recall."""
    total = np.maximum(totals, 1)[:, None]
    needed: Int64Array = np.ceil(RECALL_POINTS * total).astype(np.int64)
    # Rounding must not ask for one box more or less than a comparison of recalls does.
    needed -= (needed - 1) / total >= RECALL_POINTS
    needed += needed / total < RECALL_POINTS
    return needed
