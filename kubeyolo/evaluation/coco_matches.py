"""Which detections match which annotated objects, by COCO's rules, for whole splits at once.

pycocotools matches again for each evaluation. A bootstrap computes AP a thousand times from the same matches, so they
are computed once and kept. The rules are those of pycocotools for all areas and at most 100 detections of a class in an
image; a test compares AP of these matches with pycocotools.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kubeyolo.arrays import BoolArray, Float64Array, Int64Array, places_in_groups
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.overlaps import coco_iou
from kubeyolo.evaluation.coco_eval import COCO_LIMIT, Detection
from kubeyolo.evaluation.engines import Boxes

IOU_THRESHOLDS: Float64Array = np.linspace(0.5, 0.95, 10)
_PAIRS_AT_ONCE = 2_000_000


@dataclass(frozen=True, eq=False)
class ClassMatches:
    """The detections of a class (D,), best score first, with their matches at 10 IoU thresholds (T).

    Attributes:
        image: Position of the image of each detection.
        score: Score of each detection.
        found: Whether a detection matches an object (T, D).
        ignored: Whether a detection matches a crowd (T, D): it then counts neither as right nor as wrong.
        objects: Number of objects in each image (I,), without crowds.
        row: Row of each detection in the detections that were matched.
    """

    image: Int64Array
    score: Float64Array
    found: BoolArray
    ignored: BoolArray
    objects: Int64Array
    row: Int64Array


@dataclass(frozen=True, eq=False)
class SplitMatches:
    """The matches of a split: of each class, and the ids of its images in increasing order."""

    image_id: Int64Array
    classes: tuple[ClassMatches, ...]

    @property
    def objects(self) -> Int64Array:
        """Number of objects in each image (I,), without crowds."""
        empty = np.zeros(len(self.image_id), np.int64)
        return empty + np.sum([each.objects for each in self.classes], axis=0) if self.classes else empty


def match_split(index: SplitIndex, category_ids: Sequence[int], detections: Sequence[Detection]) -> SplitMatches:
    """Match the detections on a split with its annotated boxes.

    Args:
        index: The images and boxes of the split.
        category_ids: Ids of the classes, in the order of ``index.box_class``.
        detections: Rows of a COCO results file, with ids of the index.
    """
    image_id = np.sort(index.image_id)
    place = np.searchsorted(image_id, index.image_id)
    ids = np.array(category_ids, np.int64)
    image, category = place[index.box_image()], index.box_class.astype(np.int64)
    truth = Boxes.annotated(image, category, index.box_xywh, index.box_crowd, index.box_area)
    found = detected_boxes(detections, image_id, ids)
    return match_boxes(truth, found, image_id, len(ids))


def detected_boxes(detections: Sequence[Detection], image_id: Int64Array, category_id: Int64Array) -> Boxes:
    """Return rows of a COCO results file as arrays.

    Args:
        detections: The rows.
        image_id: Ids of all images, increasing.
        category_id: Ids of all classes.
    """
    order = np.argsort(category_id)
    image = np.array([row["image_id"] for row in detections], np.int64)
    category = np.array([row["category_id"] for row in detections], np.int64)
    return Boxes.detected(
        np.searchsorted(image_id, image),
        order[np.searchsorted(category_id[order], category)] if len(category) else category,
        np.array([row["bbox"] for row in detections], np.float64).reshape(-1, 4),
        score=np.array([row["score"] for row in detections], np.float64),
    )


def match_boxes(truth: Boxes, detections: Boxes, image_id: Int64Array, num_classes: int) -> SplitMatches:
    """Match detections with annotated boxes; the order of both decides between equal scores and equal IoU."""
    row = _best_of_each_group(detections, num_classes)
    detections = detections.take(row)
    found, ignored = _match(truth, detections, num_classes)
    objects = np.zeros((num_classes, len(image_id)), np.int64)
    np.add.at(objects, (truth.category[~truth.crowd], truth.image[~truth.crowd]), 1)
    classes = []
    by_class = np.lexsort((detections.image, -detections.score, detections.category))
    bounds = np.searchsorted(detections.category[by_class], np.arange(num_classes + 1))
    for number in range(num_classes):
        rows = by_class[bounds[number] : bounds[number + 1]]
        image, score = detections.image[rows], detections.score[rows]
        classes.append(ClassMatches(image, score, found[:, rows], ignored[:, rows], objects[number], row[rows]))
    return SplitMatches(image_id, tuple(classes))


def _group(boxes: Boxes, num_classes: int) -> Int64Array:
    """Return a number for the image and class of each box (N,)."""
    return boxes.image * num_classes + boxes.category


def _best_of_each_group(detections: Boxes, num_classes: int) -> Int64Array:
    """Return the rows of detections by image and class, best score first, at most 100 for each image and class."""
    group = _group(detections, num_classes)
    order = np.lexsort((-detections.score, group))
    rank = places_in_groups(group[order])
    return order[rank < COCO_LIMIT]


def _match(truth: Boxes, detections: Boxes, num_classes: int) -> tuple[BoolArray, BoolArray]:
    """Return which detections match an object, and which match a crowd (T, D).

    Detections are sorted by group and score. In each round, the next detection of every group chooses among the boxes
    of its group that are left: the object with the largest IoU, or else the crowd with the largest IoU.
    """
    shape = (len(IOU_THRESHOLDS), len(detections))
    found, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    detection, box, iou = _overlapping_pairs(truth, detections, num_classes)
    if not len(detection):
        return found, ignored
    candidates = np.unique(detection)
    rank = np.zeros(len(detections), np.int64)
    rank[candidates] = places_in_groups(_group(detections, num_classes)[candidates])
    by_round = np.argsort(rank[detection], kind="stable")
    detection, box, iou = detection[by_round], box[by_round], iou[by_round]
    bounds = np.searchsorted(rank[detection], np.arange(rank.max() + 2))
    taken = np.zeros((len(IOU_THRESHOLDS), len(truth)), bool)
    for start, stop in zip(bounds, bounds[1:], strict=False):
        pairs = slice(int(start), int(stop))
        _one_round(detection[pairs], box[pairs], iou[pairs], (truth.crowd, taken, found, ignored))
    return found, ignored


def _one_round(
    detection: Int64Array,
    box: Int64Array,
    iou: Float64Array,
    state: tuple[BoolArray, BoolArray, BoolArray, BoolArray],
) -> None:
    """Let detections choose among their pairs (P,); the pairs of a detection are next to each other."""
    crowd, taken, found, ignored = state
    starts = np.flatnonzero(np.diff(detection, prepend=-1))
    chooser = detection[starts]
    near = iou >= IOU_THRESHOLDS[:, None]
    matched, pair = _choose(near & ~crowd[box] & ~taken[:, box], iou, starts)
    level, which = np.nonzero(matched)
    found[level, chooser[which]] = True
    taken[level, box[pair[level, which]]] = True
    if crowd[box].any():
        in_crowd, _ = _choose(near & crowd[box], iou, starts)
        level, which = np.nonzero(in_crowd & ~matched)
        ignored[level, chooser[which]] = True


def _choose(allowed: BoolArray, iou: Float64Array, starts: Int64Array) -> tuple[BoolArray, Int64Array]:
    """Return whether a detection has an allowed pair, and its last pair of the largest IoU, both (T, detections)."""
    value = np.where(allowed, iou, -1.0)
    best = np.maximum.reduceat(value, starts, axis=1)
    lengths = np.diff(starts, append=len(iou))
    is_best = allowed & (value == np.repeat(best, lengths, axis=1))
    pair = np.maximum.reduceat(np.where(is_best, np.arange(len(iou)), -1), starts, axis=1)
    return best >= 0, pair


def _overlapping_pairs(
    truth: Boxes, detections: Boxes, num_classes: int
) -> tuple[Int64Array, Int64Array, Float64Array]:
    """Return detection, annotated box and IoU of all pairs of an image and class that overlap enough to match."""
    group = _group(truth, num_classes)
    by_group = np.argsort(group, kind="stable")
    ordered, wanted = group[by_group], _group(detections, num_classes)
    first = np.searchsorted(ordered, wanted)
    counts = np.searchsorted(ordered, wanted, "right") - first
    with_boxes = np.flatnonzero(counts)
    parts = []
    ends = np.cumsum(counts[with_boxes])
    cuts = np.searchsorted(ends, np.arange(_PAIRS_AT_ONCE, (ends[-1] if len(ends) else 0), _PAIRS_AT_ONCE))
    for rows in np.split(with_boxes, np.unique(cuts)):
        number = counts[rows]
        detection = np.repeat(rows, number)
        offset = np.arange(len(detection)) - np.repeat(np.cumsum(number) - number, number)
        box = by_group[np.repeat(first[rows], number) + offset]
        iou = coco_iou(detections.xywh[detection], truth.xywh[box], truth.crowd[box])
        near = iou >= IOU_THRESHOLDS[0]
        parts.append((detection[near], box[near], iou[near]))
    detection, box, iou = (np.concatenate(each) for each in zip(*parts, strict=True))
    return detection, box, iou
