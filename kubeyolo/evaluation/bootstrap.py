"""The bootstrap over images: AP of resamples of a split, from matches that are computed once.

AP is not a mean over images, so it is computed again for each resample, from how often each image was drawn. Only the
ranks at which an object is found can raise the interpolated precision. Precision is therefore computed at these ranks
alone, for many resamples at once; the detections between them are summed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from kubeyolo.arrays import BoolArray, Float64Array, Int32Array, Int64Array
from kubeyolo.evaluation.average_precision import RECALL_POINTS
from kubeyolo.evaluation.coco_matches import IOU_THRESHOLDS, ClassMatches, SplitMatches
from kubeyolo.evaluation.intervals import RESAMPLES, SEED, Resamples
from kubeyolo.progress import Progress

_LARGER = np.array([number for number, value in enumerate(RECALL_POINTS) if value > number / 100])
"""Numbers of the values of recall that are larger than their fraction."""
_BYTES = 32e6
"""Aim for the memory of the largest arrays."""
_MOST_WORK = 4e10
"""Largest number of additions and comparisons; they take about a minute. With more, fewer resamples are drawn."""
_SHOWN_WORK = 2e9
LEAST_RESAMPLES = 100


@dataclass(frozen=True, eq=False)
class ClassSamples:
    """AP and AP50 of the resamples by class, both (C, R); NaN where a resample has no object of the class."""

    ap: Float64Array
    ap50: Float64Array

    def means(self) -> dict[str, Float64Array]:
        """Return AP and AP50 of the resamples (R,): means over the classes that have objects."""
        return {"AP": mean_of_present(self.ap), "AP50": mean_of_present(self.ap50)}


def resampled(matches: SplitMatches, resamples: int = RESAMPLES) -> Resamples:
    """Return AP and AP50 of resamples of a split."""
    return stored_samples(matches, class_samples(matches, resamples))


def stored_samples(matches: SplitMatches, samples: ClassSamples) -> Resamples:
    """Return the means of a split and of its resamples in the form that a result keeps."""
    own = average_precision(matches, np.ones((len(matches.image_id), 1), np.int32)).means()
    return Resamples.of(
        {key: np.concatenate([own[key], values]) for key, values in samples.means().items()},
        images=len(matches.image_id),
        images_with_objects=int(np.count_nonzero(matches.objects)),
        drawn_from=hashlib.sha256(matches.image_id.astype("<i8").tobytes()).hexdigest()[:16],
    )


def class_samples(matches: SplitMatches, resamples: int = RESAMPLES) -> ClassSamples:
    """Return AP and AP50 of resamples of a split by class.

    The same resamples are drawn for all models that are evaluated on the same images. If the computation would take
    more than about a minute, fewer resamples are drawn, and a line is printed.
    """
    images, classes = len(matches.image_id), len(matches.classes)
    ranks = [_Ranks.of(each) for each in matches.classes]
    work = sum(each.work for each in ranks)
    affordable = max(LEAST_RESAMPLES, int(_MOST_WORK / max(work, 1)))
    if affordable < resamples:
        print(
            f"interval of AP: {affordable} resamples instead of {resamples:,}, since the split has many images and "
            "detections; the ends of the interval are less exact",
            flush=True,
        )
        resamples = affordable
    result = np.full((2, classes, resamples), np.nan)
    if not images:
        return ClassSamples(*result)
    block = max(1, min(resamples, int(_BYTES / 4 / images)))
    shows = work * resamples > _SHOWN_WORK
    with Progress(f"interval of AP, {resamples:,} resamples", classes * resamples) if shows else nullcontext() as bar:
        for start in range(0, resamples, block):
            drawn = _draw(images, range(start, min(start + block, resamples)))
            for number, each in enumerate(ranks):
                result[:, number, start : start + block] = each.average_precision(drawn)
                if bar is not None:
                    bar.advance(drawn.shape[1])
    return ClassSamples(*result)


def average_precision(matches: SplitMatches, drawn: Int32Array) -> ClassSamples:
    """Return AP and AP50 by class if each image counts as often as it was drawn.

    Args:
        matches: The matches of a split of I images.
        drawn: How often each image was drawn in each resample (I, R); a column of ones gives pycocotools' AP.
    """
    values = [_Ranks.of(each).average_precision(drawn) for each in matches.classes]
    return ClassSamples(*np.array(values).reshape(-1, 2, drawn.shape[1]).swapaxes(0, 1))


def mean_of_present(values: Float64Array) -> Float64Array:
    """Return the mean over the first axis (C, R) of the values that are not NaN (R,); NaN if all are."""
    present = ~np.isnan(values)
    counts = present.sum(0)
    total = np.where(present, values, 0.0).sum(0)
    return np.divide(total, counts, out=np.full(values.shape[1:], np.nan), where=counts > 0)


def _draw(images: int, numbers: range) -> Int32Array:
    """Return how often each image is drawn in the resamples with these numbers (I, R)."""
    drawn = np.empty((len(numbers), images), np.int32)
    for row, number in enumerate(numbers):
        chosen = np.random.default_rng((SEED, number)).integers(0, images, images)
        drawn[row] = np.bincount(chosen, minlength=images)
    return np.ascontiguousarray(drawn.T)


@dataclass(frozen=True, eq=False)
class _Ranks:
    """The detections of a class up to the last that finds an object, prepared for many resamples.

    Attributes:
        matches: The matches of the class.
        finding: Ranks at which an object is found at any IoU threshold (K,).
    """

    matches: ClassMatches
    finding: Int64Array

    @classmethod
    def of(cls, matches: ClassMatches) -> _Ranks:
        return cls(matches, np.flatnonzero(matches.found.any(0)))

    @property
    def work(self) -> int:
        """Approximate number of additions and comparisons for a resample."""
        return int(self.finding[-1]) + 20 * int(self.matches.found.sum()) if len(self.finding) else 0

    def average_precision(self, drawn: Int32Array) -> Float64Array:
        """Return AP and AP50 of the resamples (2, R); NaN where a resample has no object."""
        objects = self.matches.objects @ drawn
        values = np.zeros((len(IOU_THRESHOLDS), drawn.shape[1]))
        step = max(1, int(_BYTES / 8 / max(1, len(self.finding))))
        if len(self.finding):
            for start in range(0, drawn.shape[1], step):
                part = np.ascontiguousarray(drawn[:, start : start + step]) if step < drawn.shape[1] else drawn
                values[:, start : start + step] = self._values(part, objects[start : start + step])
        result = np.stack([values.mean(0), values[0]])
        result[:, objects == 0] = np.nan
        return result

    def _values(self, drawn: Int32Array, objects: Int64Array) -> Float64Array:
        """Return the average precision at each IoU threshold (T, R)."""
        image = self.matches.image
        ends = self.finding + 1
        all_counts = np.empty((len(ends), drawn.shape[1]))
        for row, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            drawn[image[start:end]].sum(0, out=all_counts[row], dtype=np.float64)
        _accumulate(np.add, all_counts)
        found_at = self.matches.found[:, self.finding]
        return np.array(
            [
                self._value(at, level, drawn, all_counts, objects) if at.any() else np.zeros(drawn.shape[1])
                for level, at in enumerate(found_at)
            ]
        )

    def _value(
        self, at: BoolArray, level: int, drawn: Int32Array, all_counts: Float64Array, objects: Int64Array
    ) -> Float64Array:
        """Return the average precision at an IoU threshold (R,): the mean of precision at 101 values of recall."""
        ranks = self.finding[at]
        right = drawn[self.matches.image[ranks]].astype(np.float64)
        _accumulate(np.add, right)
        counted = all_counts[at] - self._ignored_before(ranks, level, drawn)
        # Where no detection was drawn yet, no object was found either.
        precision = np.divide(right, np.maximum(counted, 1.0, out=counted), out=counted)
        _accumulate(np.maximum, precision[::-1])
        reached = _recalls_reached(right, objects)
        total: Float64Array = reached[0] * precision[0] + np.einsum("kr,kr->r", np.diff(reached, axis=0), precision[1:])
        return total / len(RECALL_POINTS)

    def _ignored_before(self, ranks: Int64Array, level: int, drawn: Int32Array) -> Float64Array | float:
        """Return how many detections up to each rank (K,) match a crowd (K, R); 0 if none does."""
        ignored = np.flatnonzero(self.matches.ignored[level, : ranks[-1]])
        if not len(ignored):
            return 0.0
        counts = np.zeros((len(ignored) + 1, drawn.shape[1]))
        counts[1:] = drawn[self.matches.image[ignored]]
        _accumulate(np.add, counts)
        return counts[np.searchsorted(ignored, ranks)]


def _accumulate(combine: Callable[..., Float64Array], rows: Float64Array) -> None:
    """Replace each row (K, R) by the combination of all rows up to it; faster than accumulating along the axis."""
    for before, row in zip(rows, rows[1:], strict=False):
        combine(before, row, out=row)


def _recalls_reached(right: Float64Array, objects: Int64Array) -> Float64Array:
    """Return how many of the 101 values of recall are at most the recall at each rank (K, R).

    As in pycocotools, a value of recall that floating point made larger than its fraction, such as 0.29, is not reached
    by exactly that fraction of the objects.
    """
    reached = right * (100 / np.maximum(objects, 1))
    reached += 1e-9
    np.floor(reached, out=reached)
    reached += 1.0
    exact = np.flatnonzero((objects[:, None] * _LARGER % 100 == 0).any(1))
    if len(exact):
        reached[:, exact] = np.searchsorted(RECALL_POINTS, right[:, exact] / np.maximum(objects[exact], 1), "right")
    return reached
