"""Warnings about boxes, anchors, schedules and losses from which a training learns little.

Nothing here refuses a training or changes its results: the first process prints the warnings before the first step and
after the last step, and stores them with the result.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kubeyolo.arrays import Float64Array, Int64Array
from kubeyolo.config.schema import Config
from kubeyolo.config.section import MOST_PIXELS
from kubeyolo.config.training_schema import AugmentConfig, TrainConfig
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.labels import BoxTable
from kubeyolo.data.letterbox import letterbox_geometry
from kubeyolo.data.mosaic import MIN_SIDE, BoxRule
from kubeyolo.data.overlaps import concentric_iou
from kubeyolo.formats import counted, share_of, share_text
from kubeyolo.models.facts import Anchors, ModelFacts
from kubeyolo.output_streams import Show
from kubeyolo.training.history import HistoryRow
from kubeyolo.training.reach import idle_warnings, reach_warnings, schedule_warnings

LOST_SHARE = 0.1
NEARLY_ALL = 0.9
LEAST_RECALL = 0.98
EMPTY_SHARE = 0.5
LEAST_CHANGE = 1e-3

_LARGEST_TRIED = 1536
_BOXES_TRIED = 20_000
_USUAL_RULE = BoxRule.of(AugmentConfig())
# Fewer rows may be equal by chance.
_LEAST_ROWS = 3


@dataclass(frozen=True)
class Learnable:
    """Findings about a training before its first step.

    Attributes:
        recall: Share of the boxes that fit an anchor, 0..1: the best possible recall; None without boxes.
        lines: Sentences for the log.
        warnings: Warnings for the person who starts the training, as sentences.
    """

    recall: float | None
    lines: tuple[str, ...]
    warnings: tuple[str, ...]

    def show(self, show: Show) -> None:
        """Print the lines and the warnings, one per line."""
        for line in self.lines:
            show(line)
        show_warnings(self.warnings, show)


def show_warnings(warnings: Iterable[str], show: Show) -> None:
    """Print warnings, one line each."""
    for line in warnings:
        show(f"warning: {line}")


def look_at_training(
    index: SplitIndex, facts: ModelFacts, config: Config, steps_per_epoch: int, dataset: str = "DATASET"
) -> Learnable:
    """Check before the first step whether a training can learn from its data.

    Args:
        index: The images and boxes of the training.
        facts: The model, with the anchors of the training.
        config: The configuration.
        steps_per_epoch: Steps of an epoch.
        dataset: URI of the data set, for the command that computes anchors from it.
    """
    train, table = config.train, BoxTable(index)
    sides, rule = box_sides(index, table, train.image_size), BoxRule.of(config.augment)
    recall, line, of_anchors = _anchors(sides, rule, facts, train, anchors_command(dataset, config))
    warnings = [
        *empty_warnings(table.counts),
        *size_warnings(sides, train.image_size, facts.strides[-1], rule),
        *of_anchors,
        *schedule_warnings(train, config.augment, steps_per_epoch),
        *idle_warnings(config.augment),
        *reach_warnings(train, steps_per_epoch),
    ]
    return Learnable(recall, (line,) if line else (), tuple(warnings))


def anchors_command(dataset: str, config: Config) -> str:
    """Return the command that computes anchors for a training."""
    words = ["kubeyolo", "anchors", dataset, "--model", config.model]
    words += ["--set", f"train.image_size={config.train.image_size}"]
    if config.train.anchor_t != TrainConfig().anchor_t:
        words += ["--set", f"train.anchor_t={config.train.anchor_t:g}"]
    if config.augment.max_aspect != AugmentConfig().max_aspect:
        words += ["--set", f"augment.max_aspect={config.augment.max_aspect:g}"]
    return shlex.join(words)


def box_sides(index: SplitIndex, table: BoxTable, image_size: int) -> Float64Array:
    """Return width and height of the training boxes in pixels of the letterboxed image, float64 (boxes, 2)."""
    images = zip(index.width.tolist(), index.height.tolist(), strict=True)
    geometries = [letterbox_geometry(width, height, image_size) for width, height in images]
    sizes: Float64Array = np.array([(each.width, each.height) for each in geometries], np.float64).reshape(-1, 2)
    fractions: Float64Array = np.subtract(table.corners[:, 2:], table.corners[:, :2])
    return fractions * np.repeat(sizes, table.counts, axis=0)


def anchor_ratios(sides: Float64Array, anchors: Anchors) -> Float64Array:
    """Return by which factor, at least 1, each box (boxes, 2) differs from the anchor that fits it best.

    This is the larger of the factors for width and height; YOLOv5 matches a box and an anchor if this factor is below
    ``anchor_t``.
    """
    best = np.full(len(sides), np.inf)
    for anchor in (pair for level in anchors for pair in level):
        ratio = np.maximum(sides, 1e-9) / np.asarray(anchor, np.float64)
        best = np.minimum(best, np.maximum(ratio, 1 / ratio).max(axis=1))
    return best


def nearest_overlaps(sides: Float64Array, anchors: Anchors) -> Float64Array:
    """Return for each box (boxes, 2) the largest overlap (IoU, 0..1) with an anchor that has the same centre."""
    best = np.zeros(len(sides))
    for anchor in (np.asarray(pair, np.float64) for level in anchors for pair in level):
        best = np.maximum(best, concentric_iou(sides, anchor[None])[:, 0])
    return best


def empty_warnings(counts: Int64Array) -> list[str]:
    """Warn if at least half of the images have no boxes; ``counts`` (images,) is the number of boxes of each image."""
    empty, images = int((counts == 0).sum()), len(counts)
    if not images or empty < EMPTY_SHARE * images:
        return []
    return [
        f"{share_of(empty, images)} training images have no boxes: the network learns that they show no objects. "
        "If they should have boxes, check whether their annotations were read; if not, fewer empty images suffice."
    ]


def size_warnings(sides: Float64Array, image_size: int, stride: int = 32, rule: BoxRule = _USUAL_RULE) -> list[str]:
    """Warn if at least a tenth of the boxes is too small or too long at the training size.

    Args:
        sides: Width and height of the boxes in pixels at the training size, (boxes, 2).
        image_size: Side of the training images in pixels.
        stride: The sides of training images are multiples of this number.
        rule: Which boxes the augmentation keeps.
    """
    boxes = len(sides)
    if not boxes:
        return []
    warnings = []
    small = int((sides.min(axis=1) <= MIN_SIDE).sum())
    if small >= LOST_SHARE * boxes:
        least = _least_size(sides, image_size, stride)
        remedy = (
            f"with train.image_size = {least} or more, less than a tenth of the boxes is that small"
            if least <= MOST_PIXELS
            else "cut the images into parts in which the objects are larger"
        )
        harm = (
            "almost no boxes are left to learn from" if small >= NEARLY_ALL * boxes else "the network never sees them"
        )
        warnings.append(
            f"{share_of(small, boxes)} training boxes are {MIN_SIDE:g} pixels or less wide or high at train.image_size "
            f"= {image_size}, and such boxes are left out: {harm}; {remedy}."
        )
    long = int(((sides.min(axis=1) > MIN_SIDE) & ~rule.has_shape(sides)).sum())
    if long >= LOST_SHARE * boxes:
        warnings.append(
            f"{share_of(long, boxes)} training boxes are at least {rule.max_aspect:g} times as long as they are wide "
            "(augment.max_aspect), and such boxes are left out."
        )
    return warnings


def loss_warnings(rows: Sequence[HistoryRow]) -> list[str]:
    """Warn if the loss of a finished training never changed; ``rows`` are the history rows of its training steps."""
    warnings = []
    boxes = [row.box for row in rows if row.box is not None]
    if boxes and not any(boxes):
        warnings.append(
            f"the box loss was 0 in all {counted(rows[-1].step, 'step')}: no box was matched with an anchor, and "
            "the network has not learned where objects are."
        )
    losses = [row.loss for row in rows if row.loss is not None]
    if len(losses) >= _LEAST_ROWS:
        low, high = min(losses), max(losses)
        if high - low <= LEAST_CHANGE * max(abs(low), abs(high)):
            warnings.append(
                f"the loss did not change by more than {100 * LEAST_CHANGE:g} % in {counted(rows[-1].step, 'step')} "
                f"(from {losses[0]:.6g} to {losses[-1]:.6g}): the network has learned nothing; check train.lr and "
                "the warnings at the start."
            )
    return warnings


def _anchors(
    sides: Float64Array, rule: BoxRule, facts: ModelFacts, train: TrainConfig, command: str
) -> tuple[float | None, str, list[str]]:
    """Return the best possible recall, the line for the log, and warnings."""
    kept = rule.has_shape(sides)
    # If no box is kept, the anchors are judged by all boxes.
    judged = sides[kept] if kept.any() else sides
    boxes = len(judged)
    if not boxes:
        return None, "", []
    which = " of train.anchors" if train.anchors else ""
    if facts.loss in ("yolov3", "yolov4"):
        mean = float(nearest_overlaps(judged, facts.anchors).mean())
        return (
            1.0,
            f"anchors: {share_of(boxes, boxes)} boxes are matched with the anchor{which} nearest in size, however "
            f"much the sides differ (mean overlap {mean:.3f} at train.image_size = {train.image_size})",
            [],
        )
    ratios = anchor_ratios(judged, facts.anchors)
    fitting = int((ratios < train.anchor_t).sum())
    recall = fitting / boxes
    at = f"train.anchor_t = {train.anchor_t:g} at train.image_size = {train.image_size}"
    line = f"anchors: {share_of(fitting, boxes)} boxes fit an anchor{which} (best possible recall {recall:.3f}, {at})"
    if recall >= LEAST_RECALL:
        return recall, line, []
    harm = "the box loss stays 0 and the network learns no box" if not fitting else "the network does not learn them"
    # Anchors cannot be computed from fewer boxes than anchors, nor from boxes that are left out.
    needed, most = _least_ratio(ratios), facts.most_of_anchor
    limit = f" (but a decoded side is at most {most:g} times its anchor)" if most is not None and needed > most else ""
    computed = f"'{command}' computes anchors that fit; " if kept.sum() >= facts.anchor_count else ""
    warning = (
        f"no anchor fits {share_of(boxes - fitting, boxes)} training boxes within {at}: for every anchor, a "
        f"side differs by this factor or more, so {harm} (best possible recall {recall:.3f}); "
        f"{computed}{_size_remedy(sides, rule, facts, train)}train.anchor_t = {needed:g} would "
        f"match {100 * LEAST_RECALL:g} % of the boxes{limit}, and the losses of yolov3 and yolov4 match every box "
        "with an anchor."
    )
    return recall, line, [warning]


def _size_remedy(sides: Float64Array, rule: BoxRule, facts: ModelFacts, train: TrainConfig) -> str:
    """Return a remedy with the training size at which most boxes fit; empty if no size is better."""
    some = sides[:: max(1, len(sides) // _BOXES_TRIED)]

    def share(image_size: int) -> float:
        scaled = some * (image_size / train.image_size)
        return float(((anchor_ratios(scaled, facts.anchors) < train.anchor_t) & rule.has_shape(scaled)).mean())

    step = max(64, facts.strides[-1])
    now, sizes = share(train.image_size), range(step, _LARGEST_TRIED + 1, step)
    tried = {size: share(size) for size in sizes if size != train.image_size}
    best = max(tried.values())
    if best < min(LEAST_RECALL, now + 0.05):
        return ""
    # The smallest of the best sizes, because it is the cheapest.
    size = next(size for size, value in tried.items() if value >= min(best, LEAST_RECALL))
    return f"with train.image_size = {size}, {share_text(tried[size])} of all boxes fit; "


def _least_ratio(ratios: Float64Array) -> float:
    """Return the smallest ``anchor_t``, rounded up to a tenth, with which enough boxes fit to avoid the warning."""
    needed = np.sort(ratios)[math.ceil(LEAST_RECALL * len(ratios)) - 1]
    return (math.floor(float(needed) * 10) + 1) / 10


def _least_size(sides: Float64Array, image_size: int, stride: int) -> int:
    """Return the smallest training size at which less than a tenth of the boxes is too small."""
    shorter = np.sort(np.maximum(sides.min(axis=1), 1e-9))
    # The smallest box that must be kept.
    allowed = math.ceil(LOST_SHARE * len(shorter)) - 1
    exact = MIN_SIDE * image_size / float(shorter[max(allowed, 0)])
    # Sides must be larger than the limit; letterboxing rounds to whole pixels.
    return (math.floor(exact / stride) + 1) * stride
