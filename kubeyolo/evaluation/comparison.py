"""The comparison of two models on the same images: paired differences of AP, and the images that differ most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kubeyolo.arrays import Float64Array, Int64Array
from kubeyolo.evaluation.bootstrap import average_precision, class_samples, stored_samples
from kubeyolo.evaluation.coco_matches import SplitMatches
from kubeyolo.evaluation.intervals import WITH_INTERVAL, Interval, Resamples, normal_interval


@dataclass(frozen=True)
class Difference:
    """A metric of two models, 0 to 1, and the interval of the second minus the first; None if it is not defined.

    Attributes:
        name: Key of the metric, or name of the class.
        first: The metric of the first model.
        second: The metric of the second model.
        interval: The paired interval of the difference, 0 to 1; None if it is not known.
    """

    name: str
    first: float | None
    second: float | None
    interval: Interval | None = None

    @property
    def difference(self) -> float | None:
        """The second minus the first."""
        return None if self.first is None or self.second is None else self.second - self.first

    @property
    def decision(self) -> str:
        """The decision by the interval: ``better`` or ``worse`` for the second model, ``equal``, or ``undecided``."""
        interval = self.interval
        if interval is None or not interval.is_usable:
            return "undecided"
        if interval.low == interval.high == 0:
            return "equal"
        return "better" if interval.low > 0 else "worse" if interval.high < 0 else "undecided"


@dataclass(frozen=True)
class Mistakes:
    """Results of a model on an image: found objects, missed objects, and false alarms."""

    found: int
    missed: int
    false_alarms: int

    @property
    def total(self) -> int:
        """Missed objects and false alarms."""
        return self.missed + self.false_alarms


@dataclass(frozen=True)
class ImageDifference:
    """An image, by its id, and the mistakes of both models on it."""

    image_id: int
    first: Mistakes
    second: Mistakes


@dataclass(frozen=True)
class MatchedComparison:
    """The difference of two models, computed from their matches on the same images.

    Attributes:
        numbers: AP and AP50.
        classes: AP of each class.
        resamples: The resamples of both models.
        thresholds: The score of each model above which F1 is highest; mistakes are counted there.
        images: The images on which the numbers of mistakes differ, the largest difference first.
    """

    numbers: tuple[Difference, ...]
    classes: tuple[Difference, ...]
    resamples: tuple[Resamples, Resamples]
    thresholds: tuple[float, float]
    images: tuple[ImageDifference, ...]


def compare_matches(first: SplitMatches, second: SplitMatches, names: Sequence[str]) -> MatchedComparison:
    """Compare two models by their matches on the same images and classes.

    Args:
        first: Matches of the first model.
        second: Matches of the second model.
        names: Names of the classes.
    """
    both = (first, second)
    samples = [class_samples(each) for each in both]
    stored = tuple(stored_samples(*each) for each in zip(both, samples, strict=True))
    ones = np.ones((len(first.image_id), 1), np.int32)
    own = [average_precision(each, ones).ap[:, 0] for each in both]
    by_class = [np.concatenate([ap[:, None], each.ap], axis=1) for ap, each in zip(own, samples, strict=True)]
    classes = []
    for number, name in enumerate(names):
        images = int(np.count_nonzero(first.classes[number].objects))
        mine, theirs = by_class[0][number], by_class[1][number]
        classes.append(Difference(name, _defined(mine[0]), _defined(theirs[0]), _paired(mine, theirs, images)))
    numbers = []
    for key in WITH_INTERVAL:
        mine, theirs = (each.array(key) for each in stored)
        interval = _paired(mine, theirs, stored[0].images_with_objects)
        numbers.append(Difference(key, _defined(mine[0]), _defined(theirs[0]), interval))
    thresholds = (best_threshold(first), best_threshold(second))
    return MatchedComparison(
        tuple(numbers), tuple(classes), (stored[0], stored[1]), thresholds, _image_differences(both, thresholds)
    )


def best_threshold(matches: SplitMatches) -> float:
    """Return the score at which F1 over all classes is highest, at IoU .50; 1 without a right detection."""
    score = np.concatenate([each.score for each in matches.classes] or [np.zeros(0)])
    right = np.concatenate([each.found[0] for each in matches.classes] or [np.zeros(0, bool)])
    ignored = np.concatenate([each.ignored[0] for each in matches.classes] or [np.zeros(0, bool)])
    if not right.any():
        return 1.0
    order = np.argsort(-score, kind="stable")
    score, found = score[order], np.cumsum(right[order])
    f1 = 2 * found / (np.cumsum(~ignored[order]) + matches.objects.sum())
    # Detections of the same score are above a threshold together.
    f1[:-1][score[:-1] == score[1:]] = 0.0
    return float(score[np.argmax(f1)])


def mistakes_by_image(matches: SplitMatches, threshold: float) -> Int64Array:
    """Return found objects, missed objects and false alarms of each image (I, 3), at IoU .50.

    Args:
        matches: The matches of a model.
        threshold: Detections of a lower score are left out.
    """
    images = len(matches.image_id)
    counts = np.zeros((images, 3), np.int64)
    for each in matches.classes:
        shown = each.score >= threshold
        found, wrong = shown & each.found[0], shown & ~each.found[0] & ~each.ignored[0]
        counts[:, 0] += np.bincount(each.image[found], minlength=images)
        counts[:, 2] += np.bincount(each.image[wrong], minlength=images)
    counts[:, 1] = matches.objects - counts[:, 0]
    return counts


def _image_differences(
    both: tuple[SplitMatches, SplitMatches], thresholds: tuple[float, float]
) -> tuple[ImageDifference, ...]:
    counts = [mistakes_by_image(each, threshold) for each, threshold in zip(both, thresholds, strict=True)]
    totals = [each[:, 1:].sum(1) for each in counts]
    difference = np.abs(totals[1] - totals[0])
    order = np.lexsort((totals[0] + totals[1], difference))[::-1]
    return tuple(
        ImageDifference(int(both[0].image_id[i]), *(Mistakes(*map(int, each[i])) for each in counts))
        for i in order[: np.count_nonzero(difference)]
    )


def _paired(first: Float64Array, second: Float64Array, images: int) -> Interval | None:
    """Return the interval of the second metric minus the first, given values of the split and of resamples (1 + R,)."""
    count = min(len(first), len(second))
    return normal_interval(second[:count] - first[:count], images)


def _defined(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
