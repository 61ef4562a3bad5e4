"""Suspects: annotations that look wrong, since confident detections contradict them, as a COCO document to review."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kubeyolo.arrays import BoolArray, Float64Array, Int64Array
from kubeyolo.data.overlaps import corners, pairwise_iou
from kubeyolo.evaluation.error_kinds import BACKGROUND, ErrorKinds
from kubeyolo.evaluation.image_outcomes import ImageOutcomes
from kubeyolo.evaluation.matching import MATCH_IOU, Matches, strongest

NO_BOX = "no box"
UNDETECTED_BOX = "undetected box"
SWAPPED_CLASS = "swapped class"
LOOSE_BOX = "loose box"

SENTENCES = {
    NO_BOX: "a confident detection without a box: an object that was not annotated?",
    UNDETECTED_BOX: "a box without a detection near it, although such objects are usually found: is an object there?",
    SWAPPED_CLASS: "a confident detection of another class on the box: is its class right?",
    LOOSE_BOX: "a confident detection of the class that covers the box badly: is the box in the right place?",
}
"""What each kind of suspect is."""

MOST_SUSPECTS = 1000
"""Suspects that are kept, highest suspicion first."""

_SURE_SCORE = 0.5
_SEEN_SCORE = 0.05
_SIDES = (32.0, 96.0)


@dataclass(frozen=True)
class Suspect:
    """An annotation that looks wrong.

    Attributes:
        kind: Kind of the suspect.
        image: Position of its image in the index.
        box: The suspicious box; -1 if the detection has no box.
        detection: The detection that contradicts the box; -1 if there is none.
        suspicion: 0..1; suspects are ranked by it.
    """

    kind: str
    image: int
    box: int
    detection: int
    suspicion: float


def find_suspects(
    matches: Matches, errors: ErrorKinds, outcomes: ImageOutcomes, most: int = MOST_SUSPECTS
) -> list[Suspect]:
    """Return the annotations that look wrong, highest suspicion first.

    A detection contradicts annotations if it reaches the best threshold of its class, or a score of .5.
    The suspicion of a missing box is the score; that of a class is the score minus the best score of the own class on
    the box; that of a place is score times (1 - IoU); that of a box without a detection near it is the lower of two
    shares: of the boxes of its class, and of the boxes of its size that are found.
    """
    sure = outcomes.confident | (matches.score >= _SURE_SCORE)
    image = matches.index.box_image()
    found: list[Suspect] = []
    for d in _without_copies(matches, np.flatnonzero(sure & errors.of(BACKGROUND)), most):
        found.append(Suspect(NO_BOX, int(matches.image[d]), -1, d, float(matches.score[d])))
    swapped, by_other, gain = _swapped(matches, sure)
    for b in np.flatnonzero(swapped).tolist():
        found.append(Suspect(SWAPPED_CLASS, int(image[b]), b, int(by_other[b]), float(gain[b])))
    loose, by_own, distance = _loose(matches, sure & matches.false)
    for b in np.flatnonzero(loose & ~swapped).tolist():
        found.append(Suspect(LOOSE_BOX, int(image[b]), b, int(by_own[b]), float(distance[b])))
    alone, usual = _alone(matches, outcomes)
    for b in np.flatnonzero(alone).tolist():
        found.append(Suspect(UNDETECTED_BOX, int(image[b]), b, -1, float(usual[b])))
    found = [suspect for suspect in found if suspect.suspicion > 0]
    found.sort(key=lambda suspect: (-suspect.suspicion, suspect.image, suspect.box, suspect.detection))
    return found[:most]


def _without_copies(matches: Matches, detections: Int64Array, most: int) -> list[int]:
    """Return the best detections without copies.

    A copy has an IoU of .5 or more with a better detection of its image, of any class.
    """
    kept: dict[int, list[int]] = {}
    count = 0
    for d in detections.tolist():
        if count == most:
            break
        others = kept.setdefault(int(matches.image[d]), [])
        boxes = corners(matches.xywh[[d, *others]])
        if not (np.nan_to_num(pairwise_iou(boxes[:1], boxes[1:])) >= MATCH_IOU).any():
            others.append(d)
            count += 1
    return [d for others in kept.values() for d in others]


def _swapped(matches: Matches, sure: BoolArray) -> tuple[BoolArray, Int64Array, Float64Array]:
    """Return boxes (B,) on which a sure detection of another class scores higher than all of the box's own class.

    Detections that have found a box of their own class do not count.
    """
    pairs = matches.near.select(matches.near.iou >= MATCH_IOU)
    own = matches.index.box_class[pairs.box] == matches.label[pairs.detection]
    boxes = len(matches.regular)
    kept = pairs.select(own)
    _, own_score = strongest(kept.box, kept.detection, matches.score[kept.detection], boxes)
    kept = pairs.select(~own & (sure & matches.false)[pairs.detection])
    other, score = strongest(kept.box, kept.detection, matches.score[kept.detection], boxes)
    return (other >= 0) & (score > own_score), other, score - own_score


def _loose(matches: Matches, sure: BoolArray) -> tuple[BoolArray, Int64Array, Float64Array]:
    """Return boxes (B,) that no detection found, and that sure detections of their class cover with an IoU below .5."""
    pairs = matches.near
    own = matches.index.box_class[pairs.box] == matches.label[pairs.detection]
    kept = pairs.select(own & sure[pairs.detection] & (pairs.iou < MATCH_IOU))
    distance = matches.score[kept.detection] * (1 - kept.iou)
    detection, value = strongest(kept.box, kept.detection, distance, len(matches.regular))
    return (detection >= 0) & (matches.found_by < 0), detection, value


def _alone(matches: Matches, outcomes: ImageOutcomes) -> tuple[BoolArray, Float64Array]:
    """Return boxes (B,) without a detection near them, and the share of similar boxes that are found."""
    index, regular = matches.index, matches.regular
    seen = np.zeros(len(regular), np.bool_)
    seen[matches.near.box[matches.score[matches.near.detection] >= _SEEN_SCORE]] = True
    size = np.searchsorted(_SIDES, np.sqrt(np.clip(index.box_xywh[:, 2:], 0, None).prod(axis=1)), side="right")
    shares = []
    for group in (index.box_class.astype(np.int64), size):
        total = np.bincount(group[regular], minlength=int(group.max(initial=0)) + 1)
        found = np.bincount(group[regular & outcomes.found], minlength=len(total))
        shares.append((found / np.maximum(1, total))[group])
    return regular & ~seen, np.minimum(*shares)


def suspects_document(
    suspects: Sequence[Suspect], matches: Matches, classes: Sequence[str], category_keys: Sequence[int | str]
) -> dict[str, Any]:
    """Return suspects as a COCO document: their images, highest suspicion first, with the annotations to review.

    A suspicious box keeps its id; a missing box gets a new id. ``attributes`` has rank, kind, suspicion, and
    what was detected instead.

    Args:
        suspects: The suspects, highest suspicion first.
        matches: Detections and boxes.
        classes: Name of each class.
        category_keys: Id of each class in the annotations.
    """
    index = matches.index
    image_keys = index.image_key or index.image_id.tolist()
    images = [
        {
            "id": image_keys[i],
            "file_name": index.file_name[i],
            "width": int(index.width[i]),
            "height": int(index.height[i]),
        }
        for i in dict.fromkeys(suspect.image for suspect in suspects)
    ]
    new_id = int(index.box_id.max(initial=0))
    annotations = []
    for rank, suspect in enumerate(suspects, 1):
        new_id += suspect.box < 0
        annotations.append(
            {
                "id": new_id if suspect.box < 0 else int(index.box_id[suspect.box]),
                "image_id": image_keys[suspect.image],
                **_annotation(suspect, matches, category_keys),
                "attributes": _attributes(rank, suspect, matches, classes),
            }
        )
    categories = [{"id": key, "name": name} for key, name in zip(category_keys, classes, strict=True)]
    return {
        "info": {"description": "annotations that look wrong, ranked by kubeyolo"},
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


def _annotation(suspect: Suspect, matches: Matches, category_keys: Sequence[int | str]) -> dict[str, Any]:
    """Return class and place of the box, or of the detection that has no box."""
    index, is_new = matches.index, suspect.box < 0
    label = int(matches.label[suspect.detection] if is_new else index.box_class[suspect.box])
    xywh = (matches.xywh[suspect.detection] if is_new else index.box_xywh[suspect.box]).tolist()
    area = xywh[2] * xywh[3] if is_new else float(index.box_area[suspect.box])
    return {"category_id": category_keys[label], "bbox": xywh, "area": area, "iscrowd": 0, "segmentation": []}


def _attributes(rank: int, suspect: Suspect, matches: Matches, classes: Sequence[str]) -> dict[str, Any]:
    about: dict[str, Any] = {"rank": rank, "suspect": suspect.kind, "suspicion": round(suspect.suspicion, 4)}
    if suspect.detection >= 0:
        d = suspect.detection
        detected = {"detected_class": classes[matches.label[d]], "score": float(matches.score[d])}
        about |= {**detected, "detected_bbox": matches.xywh[d].tolist()}
    return about
