"""Detections as arrays, matched with the boxes of a split at IoU .5 as in COCO's evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kubeyolo.arrays import BoolArray, Float64Array, Int64Array, places_in_groups
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.overlaps import coco_iou
from kubeyolo.evaluation.coco_eval import COCO_LIMIT, Detection
from kubeyolo.evaluation.coco_matches import detected_boxes

MATCH_IOU = 0.5
"""IoU from which a detection finds a box, the foreground threshold of TIDE."""

NEAR_IOU = 0.1
"""IoU below which a detection has nothing to do with a box, the background threshold of TIDE."""

_PAIRS_IN_MEMORY = 1 << 19


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs (P,) of a detection and a regular box of the same image, of any classes, that overlap by .1 or more."""

    detection: Int64Array
    box: Int64Array
    iou: Float64Array

    def select(self, mask: BoolArray) -> Pairs:
        """Return the pairs for which the mask (P,) is true."""
        return Pairs(self.detection[mask], self.box[mask], self.iou[mask])


@dataclass(frozen=True, eq=False)
class Matches:
    """Detections (D,) by descending score, and boxes (B,) of the index, matched at IoU .5.

    Attributes:
        index: Images and boxes of the split.
        classes: Number of classes.
        image: Position of the image of each detection in the index.
        label: Class number of each detection.
        xywh: (D, 4) left, top, width, height in pixels.
        score: Scores in 0..1.
        box: The box that each detection found; -1 if it found none.
        ignored: Whether a detection found no box and lies in a crowd of its class, so that it does not count.
        found_by: The detection that found each box; -1 if the box was not found, and for crowds.
        regular: Whether a box is not a crowd.
        near: Pairs that overlap by .1 or more, without crowds.
    """

    index: SplitIndex
    classes: int
    image: Int64Array
    label: Int64Array
    xywh: Float64Array
    score: Float64Array
    box: Int64Array
    ignored: BoolArray
    found_by: Int64Array
    regular: BoolArray
    near: Pairs

    @property
    def false(self) -> BoolArray:
        """Whether each detection (D,) is a false positive."""
        return (self.box < 0) & ~self.ignored

    @property
    def totals(self) -> Int64Array:
        """Number of regular boxes of each class (classes,)."""
        return np.bincount(self.index.box_class[self.regular], minlength=self.classes)

    def nearest(self, is_own: bool) -> tuple[Int64Array, Float64Array]:
        """Return for each detection the box that overlaps it most, -1 if no box is near, and their IoU (D,).

        Args:
            is_own: Whether only boxes of the detection's own class, or only boxes of other classes are compared.
        """
        own = self.index.box_class[self.near.box] == self.label[self.near.detection]
        pairs = self.near.select(own == is_own)
        return strongest(pairs.detection, pairs.box, pairs.iou, len(self.score))


def match_detections(index: SplitIndex, category_ids: Sequence[int], detections: Sequence[Detection]) -> Matches:
    """Match detections with boxes as COCO's evaluation does at IoU .5, for all images and classes at once.

    The best detections choose first, each the box of its class that overlaps it most and is still free.

    Args:
        index: Images and boxes of the split.
        category_ids: Category id of each class number.
        detections: Rows of a COCO results file; their ids are those of the index.
    """
    image, label, xywh, score = _arrays(index, category_ids, detections)
    near, crowded = near_pairs(index, image, label, xywh)
    own = near.select((index.box_class[near.box] == label[near.detection]) & (near.iou >= MATCH_IOU))
    box = _best_first(own, len(score), index.boxes)
    found_by = np.full(index.boxes, -1, np.int64)
    found_by[box[box >= 0]] = np.flatnonzero(box >= 0)
    return Matches(
        index=index,
        classes=len(category_ids),
        image=image,
        label=label,
        xywh=xywh,
        score=score,
        box=box,
        ignored=crowded & (box < 0),
        found_by=found_by,
        regular=~index.box_crowd,
        near=near,
    )


def strongest(keys: Int64Array, others: Int64Array, values: Float64Array, size: int) -> tuple[Int64Array, Float64Array]:
    """Return for each key 0..size-1 the member of ``others`` with the largest value, or -1, and the value, or 0."""
    order = np.lexsort((others, -values, keys))
    first = order[np.unique(keys[order], return_index=True)[1]]
    best, value = np.full(size, -1, np.int64), np.zeros(size)
    best[keys[first]], value[keys[first]] = others[first], values[first]
    return best, value


def _arrays(
    index: SplitIndex, category_ids: Sequence[int], detections: Sequence[Detection]
) -> tuple[Int64Array, Int64Array, Float64Array, Float64Array]:
    """Return image positions, classes, boxes and scores by descending score, at most 100 of an image and a class."""
    by_id = np.argsort(index.image_id)
    found = detected_boxes(detections, index.image_id[by_id], np.asarray(category_ids, np.int64))
    # Equal scores keep COCO's order: by the id of the image, then as given.
    order = np.lexsort((found.image, -found.score))
    image, label = by_id[found.image[order]].astype(np.int64), found.category[order]
    group = image * max(1, len(category_ids)) + label
    grouped = np.argsort(group, kind="stable")
    kept = np.sort(grouped[places_in_groups(group[grouped]) < COCO_LIMIT])
    return image[kept], label[kept], found.xywh[order[kept]], found.score[order[kept]]


def near_pairs(index: SplitIndex, image: Int64Array, label: Int64Array, xywh: Float64Array) -> tuple[Pairs, BoolArray]:
    """Return the pairs that overlap by .1 or more, and whether each detection (D,) lies in a crowd of its class.

    Args:
        index: Images and boxes of the split.
        image: Position of the image of each detection.
        label: Class number of each detection.
        xywh: (D, 4) left, top, width, height.
    """
    crowded = np.zeros(len(image), np.bool_)
    counts = np.diff(index.box_start)[image]
    ends = np.cumsum(counts)
    parts: list[Pairs] = []
    start = 0
    while start < len(image):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _PAIRS_IN_MEMORY, side="right")))
        detection = np.repeat(np.arange(start, stop), counts[start:stop])
        offset = np.arange(len(detection)) - np.repeat(
            ends[start:stop] - counts[start:stop] - before, counts[start:stop]
        )
        box = index.box_start[image[detection]] + offset
        crowd = index.box_crowd[box]
        iou = coco_iou(xywh[detection], index.box_xywh[box], crowd)
        inside = crowd & (iou >= MATCH_IOU) & (index.box_class[box] == label[detection])
        crowded[detection[inside]] = True
        parts.append(Pairs(detection, box, iou).select((iou >= NEAR_IOU) & ~crowd))
        start = stop
    if not parts:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)), crowded
    near = Pairs(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("detection", "box", "iou")))
    return near, crowded


def _best_first(pairs: Pairs, detections: int, boxes: int) -> Int64Array:
    """Return the box of each detection (D,), -1 for none: the lowest number chooses first, the largest IoU.

    All detections propose to their favourite box at once; a box keeps its best detection, and the others propose to
    their next box until none is left. Since all boxes prefer the same detections, this is the greedy matching.
    """
    order = np.lexsort((-pairs.box, -pairs.iou, pairs.detection))
    detection, box = pairs.detection[order], pairs.box[order]
    at = np.searchsorted(detection, np.arange(detections))
    end = np.searchsorted(detection, np.arange(detections), side="right")
    keeper = np.full(boxes, detections, np.int64)
    free = np.flatnonzero(at < end)
    while len(free):
        favourite = box[at[free]]
        before = keeper[favourite]
        np.minimum.at(keeper, favourite, free)
        kept = keeper[favourite]
        replaced = before[(before < detections) & (before != kept)]
        free = np.union1d(free[kept != free], replaced)
        at[free] += 1
        free = free[at[free] < end[free]]
    matched = np.full(detections, -1, np.int64)
    taken = np.flatnonzero(keeper < detections)
    matched[keeper[taken]] = taken
    return matched
