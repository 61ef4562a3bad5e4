"""Kinds of errors, and what each costs in AP50: Bolya et al., TIDE, ECCV 2020 (arXiv 2008.08115), sections 2.2 to 2.4.

Each false positive is of one kind, by its largest IoU with boxes of its own class and of other classes:

============== =================================================================================================
kind           a false positive, or a box
============== =================================================================================================
localization   .1 <= IoU < .5 with a box of its class
duplicate      IoU >= .5 with a box of its class, which a better detection has found
classification IoU >= .5 with a box of another class
both           .1 <= IoU < .5 with a box of another class: wrong class and wrong place
background     IoU < .1 with every box
missed         a box that no detection found, and that no localization or classification error explains
============== =================================================================================================

A box of the detection's own class explains it before a box of another class does. The cost of a kind is the gain in
AP50 if only this kind were fixed: localization errors get the place, classification errors the class of their box, and
of several detections of a box only the best stays; duplicates, background and both are removed; missed boxes are taken
out of the ground truth. The costs do not add up to the lost AP50, since errors hide each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kubeyolo.arrays import BoolArray, Float64Array, Int64Array
from kubeyolo.evaluation.average_precision import average_precisions
from kubeyolo.evaluation.matching import MATCH_IOU, NEAR_IOU, Matches

CLASSIFICATION, LOCALIZATION, BOTH, DUPLICATE, BACKGROUND, MISSED = KINDS = (
    "classification",
    "localization",
    "both",
    "duplicate",
    "background",
    "missed",
)
NO_ERROR = -1


@dataclass(frozen=True)
class KindCost:
    """The errors of a kind.

    Attributes:
        kind: Name of the kind.
        count: Number of errors.
        confident: Number of errors at the best thresholds of the classes; None for missed boxes.
        dAP50: Gain in AP50 if these errors were fixed, 0..1; None if the split has no boxes.
        by_class: Number of errors of each class: of the detections, or of the missed boxes.
    """

    kind: str
    count: int
    confident: int | None
    dAP50: float | None
    by_class: list[int]


@dataclass(frozen=True)
class ErrorCosts:
    """AP50, the errors of each kind, and the gain in AP50 without any false positives or false negatives."""

    AP50: float | None
    kinds: list[KindCost]
    false_positives_dAP50: float | None
    false_negatives_dAP50: float | None


@dataclass(frozen=True, eq=False)
class ErrorKinds:
    """The kind of each detection (D,) as a position in :data:`KINDS`, -1 for no error.

    ``target`` is the box that a detection of the kinds localization, duplicate, classification and both overlaps most,
    -1 for other detections; ``missed`` tells which boxes (B,) are missed.
    """

    kind: Int64Array
    target: Int64Array
    missed: BoolArray

    def of(self, name: str) -> BoolArray:
        """Return whether each detection (D,) is an error of a kind."""
        mask: BoolArray = self.kind == KINDS.index(name)
        return mask


def error_kinds(matches: Matches) -> ErrorKinds:
    """Return the kind of each error."""
    own_box, own = matches.nearest(is_own=True)
    other_box, other = matches.nearest(is_own=False)
    near = [own >= MATCH_IOU, own >= NEAR_IOU, other >= MATCH_IOU, other >= NEAR_IOU]
    names = [DUPLICATE, LOCALIZATION, CLASSIFICATION, BOTH]
    kind = np.select(near, [KINDS.index(name) for name in names], KINDS.index(BACKGROUND))
    target = np.select(near, [own_box, own_box, other_box, other_box], -1)
    kind, target = np.where(matches.false, kind, NO_ERROR), np.where(matches.false, target, -1)
    explained = np.zeros(len(matches.regular), np.bool_)
    explained[target[(kind == KINDS.index(LOCALIZATION)) | (kind == KINDS.index(CLASSIFICATION))]] = True
    return ErrorKinds(kind, target, matches.regular & (matches.found_by < 0) & ~explained)


def error_costs(matches: Matches, errors: ErrorKinds, confident: BoolArray) -> ErrorCosts:
    """Return how many errors of each kind there are, and what they cost.

    Args:
        matches: Detections and boxes.
        errors: Their errors.
        confident: Whether each detection (D,) reaches the best threshold of its class.
    """
    totals, classes = matches.totals, matches.classes
    base = _mean(_class_precisions(matches, matches.box, matches.label, ~matches.ignored, totals))
    kinds = []
    for name in KINDS:
        mask = errors.of(name)
        if name == MISSED:
            labels = matches.index.box_class[errors.missed].astype(np.int64)
            fixed = _class_precisions(
                matches, matches.box, matches.label, ~matches.ignored, totals - np.bincount(labels, minlength=classes)
            )
        else:
            labels = matches.label[mask]
            fixed = _fixed(matches, errors, name)
        cost = None if base is None else (_mean(fixed) or 0.0) - base
        count = len(labels)
        sure = None if name == MISSED else int((mask & confident).sum())
        kinds.append(KindCost(name, count, sure, cost, np.bincount(labels, minlength=classes).tolist()))
    no_false = _class_precisions(matches, matches.box, matches.label, matches.box >= 0, totals)
    found = np.bincount(matches.label[matches.box >= 0], minlength=classes)
    no_missed = _class_precisions(matches, matches.box, matches.label, ~matches.ignored, found)
    gains = [None if base is None else (_mean(each) or 0.0) - base for each in (no_false, no_missed)]
    return ErrorCosts(base, kinds, *gains)


def _fixed(matches: Matches, errors: ErrorKinds, name: str) -> Float64Array:
    """Return AP50 of each class without the false positives of a kind."""
    mask = errors.of(name)
    if name not in (LOCALIZATION, CLASSIFICATION):
        return _class_precisions(matches, matches.box, matches.label, ~matches.ignored & ~mask, matches.totals)
    box = np.where(mask, errors.target, matches.box)
    label = np.where(mask, matches.index.box_class[errors.target] if len(matches.regular) else -1, matches.label)
    # Of the detections of a box only the best stays; they are numbered by descending score.
    claims = np.flatnonzero(box >= 0)
    best = np.unique(box[claims], return_index=True)[1]
    stays = box < 0
    stays[claims[best]] = True
    return _class_precisions(matches, box, label, stays & ~matches.ignored, matches.totals)


def _class_precisions(
    matches: Matches, box: Int64Array, label: Int64Array, counted: BoolArray, totals: Int64Array
) -> Float64Array:
    """Return AP50 of each class that has boxes, NaN for the others.

    A class whose boxes were all taken out has nothing left to find: its AP50 is 1 without false positives, otherwise 0.
    """
    result = average_precisions(label[counted], box[counted] >= 0, totals)
    false = np.bincount(label[counted & (box < 0)], minlength=matches.classes)
    emptied = (totals <= 0) & (matches.totals > 0)
    result[emptied] = np.where(false[emptied] > 0, 0.0, 1.0)
    return result


def _mean(values: Float64Array) -> float | None:
    rated = values[~np.isnan(values)]
    return float(rated.mean()) if rated.size else None
