"""Anchors computed from the boxes of a data set, and how well anchors fit boxes.

The search starts with clusters of the logarithms of widths and heights. Then each anchor in turn moves to the best of
some random positions near it. The score suits the loss of the model: it depends on whether a box is within ``anchor_t``
of an anchor and how close it is, or on how much the box overlaps an anchor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from kubeyolo.arrays import Float64Array
from kubeyolo.config.schema import Config
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.labels import BoxTable
from kubeyolo.data.mosaic import BoxRule
from kubeyolo.data.overlaps import concentric_iou
from kubeyolo.errors import InputError
from kubeyolo.models.anchors import cut_into_levels, trained_facts
from kubeyolo.models.facts import Anchors, ModelFacts
from kubeyolo.models.named_facts import check_image_size, model_facts
from kubeyolo.training.learnable import LEAST_RECALL, anchor_ratios, box_sides, nearest_overlaps

BOXES_PER_ANCHOR = 10
"""With fewer boxes for each anchor, the computed anchors depend on individual boxes."""
RECALL_MARGIN, OVERLAP_MARGIN = 0.005, 0.03
"""Computed anchors are better than the model's own anchors if their recall or overlap is larger by this margin."""

_BOXES_USED = 8000
_ATTEMPTS = 5
_ROUNDS, _POSITIONS = 40, 8
_FIRST_STEP, _LAST_STEP = 0.25, 0.01
_WHOLE_FROM = 20.0

Score = Callable[[Float64Array, Float64Array], Float64Array]
"""Maps boxes (boxes, 2) and anchors (anchors, 2) to the score of each anchor for each box, (boxes, anchors)."""


@dataclass(frozen=True)
class AnchorFit:
    """How well anchors fit boxes.

    Attributes:
        anchors: (level, anchor, 2) widths and heights in pixels.
        recall: Share of the boxes that have an anchor within ``anchor_t``, 0..1: the best possible recall.
        overlap: Mean overlap (IoU, 0..1) of a box with the nearest anchor, both with the same centre.
        per_box: Mean number of anchors within ``anchor_t`` of a box.
    """

    anchors: Anchors
    recall: float
    overlap: float
    per_box: float


@dataclass(frozen=True)
class FoundAnchors:
    """Anchors computed from a data set, and the anchors of the model to compare them with.

    Attributes:
        boxes: Number of boxes that the anchors are computed from.
        left_out: Number of boxes that the augmentation leaves out at this training size.
        crowds: Number of crowd boxes, which are left out too.
        own: The model's own anchors.
        given: The anchors of ``train.anchors``; None if that setting is empty.
        computed: The computed anchors.
        by_overlap: Whether the loss assigns every box to an anchor, so that only the overlap counts.
        warnings: Warnings about the boxes, as sentences.
    """

    boxes: int
    left_out: int
    crowds: int
    own: AnchorFit
    given: AnchorFit | None
    computed: AnchorFit
    by_overlap: bool
    warnings: tuple[str, ...]

    @property
    def own_are_as_good(self) -> bool:
        """Whether the model's own anchors fit as well as the computed anchors, except for a small margin."""
        by_recall = self.computed.recall - self.own.recall < RECALL_MARGIN or self.by_overlap
        return by_recall and self.computed.overlap - self.own.overlap < OVERLAP_MARGIN

    @property
    def own_are_enough(self) -> bool:
        """Whether a training does not warn about the model's own anchors, and computed anchors match no more boxes."""
        enough = self.own.recall >= LEAST_RECALL and self.computed.recall - self.own.recall < RECALL_MARGIN
        return self.own_are_as_good or (enough and not self.by_overlap)


def find_anchors(index: SplitIndex, config: Config) -> FoundAnchors:
    """Compute anchors for a training from its boxes; the same boxes and ``train.seed`` give the same anchors.

    The boxes are taken from the letterboxed images, without crowds and without boxes that the augmentation leaves out.

    Args:
        index: The images and boxes of the training.
        config: Model, ``train.image_size``, ``anchor_t``, ``anchors`` and ``seed``, and ``augment.max_aspect``.

    Raises:
        InputError: There are fewer boxes than anchors, or the model cannot be trained at this size.
    """
    check_image_size(config)
    train, own = config.train, model_facts(config.model)
    every = box_sides(index, BoxTable(index), train.image_size)
    sides = every[BoxRule.of(config.augment).has_shape(every)]
    warnings = _warnings(sides, len(every), own, train.image_size)
    by_overlap = own.loss in ("yolov3", "yolov4")
    score = concentric_iou if by_overlap else _closeness(train.anchor_t)
    computed = cut_into_levels(own, _search(sides, own, score, train.seed).tolist())
    return FoundAnchors(
        boxes=len(sides),
        left_out=len(every) - len(sides),
        crowds=int(index.box_crowd.sum()),
        own=fit_of(sides, own.anchors, train.anchor_t),
        given=fit_of(sides, trained_facts(config).anchors, train.anchor_t) if train.anchors else None,
        computed=fit_of(sides, computed, train.anchor_t),
        by_overlap=by_overlap,
        warnings=tuple(warnings),
    )


def fit_of(sides: Float64Array, anchors: Anchors, anchor_t: float) -> AnchorFit:
    """Return how well anchors fit boxes (boxes, 2); there must be at least one box."""
    within = [anchor_ratios(sides, ((pair,),)) < anchor_t for level in anchors for pair in level]
    counts = np.sum(within, axis=0)
    return AnchorFit(
        anchors, float((counts > 0).mean()), float(nearest_overlaps(sides, anchors).mean()), float(counts.mean())
    )


def _warnings(sides: Float64Array, every: int, facts: ModelFacts, image_size: int) -> list[str]:
    """Return warnings about the boxes.

    Raises:
        InputError: There are fewer boxes than anchors.
    """
    boxes, anchors = len(sides), facts.anchor_count
    left_out = f" ({every - boxes} more boxes, too small or too long, are left out)" if every > boxes else ""
    if boxes < anchors:
        raise InputError(
            f"{facts.name} has {anchors} anchors, but the number of training boxes at train.image_size = "
            f"{image_size} is {boxes}{left_out}: too few to compute anchors from; keep the model's own anchors"
        )
    sizes = len(np.unique(np.round(sides, 1), axis=0))
    if sizes < anchors:
        return [
            f"the {boxes} boxes have {sizes} different sizes, and {facts.name} has {anchors} anchors: "
            "some computed anchors are equal"
        ]
    if boxes < BOXES_PER_ANCHOR * anchors:
        return [
            f"there are {boxes} training boxes{left_out} for {anchors} anchors, fewer than {BOXES_PER_ANCHOR} for "
            "each: the computed anchors depend on individual boxes and may not fit other images"
        ]
    return []


def _search(sides: Float64Array, facts: ModelFacts, score: Score, seed: int) -> Float64Array:
    """Return anchors (anchors, 2) sorted from small to large."""
    random = np.random.default_rng(seed)
    if len(sides) > _BOXES_USED:
        sides = sides[random.choice(len(sides), _BOXES_USED, replace=False)]
    # Start from the model's own anchors too, so that the computed anchors are not worse.
    starts = (_clusters(sides, facts.anchor_count, seed), np.array(facts.anchors).reshape(-1, 2))
    candidates = [_rounded(_improved(sides, start, score, random)) for start in starts]
    return max(candidates, key=lambda anchors: float(score(sides, anchors).max(axis=1).mean()))


def _clusters(sides: Float64Array, count: int, seed: int) -> Float64Array:
    cv2.setRNGSeed(seed % 2**31)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 100, 1e-4)
    points = np.log(sides).astype(np.float32)
    _, _, centres = cv2.kmeans(points, count, None, criteria, _ATTEMPTS, cv2.KMEANS_PP_CENTERS)
    return np.exp(centres.astype(np.float64))


def _improved(sides: Float64Array, anchors: Float64Array, score: Score, random: np.random.Generator) -> Float64Array:
    """Return anchors after each anchor has moved repeatedly to the best of some random positions near it."""
    anchors = anchors.copy()
    scores = score(sides, anchors)
    for step in np.geomspace(_FIRST_STEP, _LAST_STEP, _ROUNDS):
        for number in random.permutation(len(anchors)):
            moves = np.exp(step * random.standard_normal((_POSITIONS, 2)))
            # The current position comes first, so it wins a tie.
            positions = np.concatenate([anchors[number : number + 1], anchors[number] * moves])
            others = np.delete(scores, number, axis=1).max(axis=1)
            there = score(sides, positions)
            best = int(np.maximum(there, others[:, None]).mean(axis=0).argmax())
            anchors[number], scores[:, number] = positions[best], there[:, best]
    return anchors


def _rounded(anchors: Float64Array) -> Float64Array:
    """Return anchors sorted from small to large, their sides rounded to whole pixels, small sides to tenths."""
    rounded = np.where(anchors < _WHOLE_FROM, anchors.round(1), anchors.round())
    return rounded[np.lexsort((rounded[:, 0], rounded.prod(axis=1)))]


def _closeness(anchor_t: float) -> Score:
    """Return the score for YOLOv5's loss: 0 if box and anchor differ by ``anchor_t`` times or more, else at least 1.

    The smaller the factor, the higher the score. An additional box within the limit raises the total score more than a
    closer fit of the other boxes.
    """

    def score(sides: Float64Array, anchors: Float64Array) -> Float64Array:
        ratio = np.abs(np.log(sides)[:, None] - np.log(anchors)[None]).max(axis=2)
        closeness: Float64Array = np.where(ratio < np.log(anchor_t), 1 + np.exp(-ratio), 0.0)
        return closeness

    return score
