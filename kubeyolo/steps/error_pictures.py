"""Pictures of errors for the report of an evaluation: the images with the most errors, and cut-outs of suspects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kubeyolo.arrays import Float64Array
from kubeyolo.data.dataset import Split
from kubeyolo.evaluation.error_analysis import ErrorAnalysis
from kubeyolo.evaluation.suspects import Suspect
from kubeyolo.report.samples import Box, ErrorPictures, SampleImage

WORST_IMAGES = 9
SUSPECTS = 12
MOST_BOXES = 150
"""Boxes that are drawn on an image, errors first."""

_SURROUNDINGS = 1.0
_LEAST_SIDE = 64


def error_pictures(split: Split, analysis: ErrorAnalysis) -> ErrorPictures:
    """Read the images of the report of an analysis and lay out their boxes."""
    return ErrorPictures(
        worst=[_image(split, analysis, i) for i in analysis.outcomes.worst(WORST_IMAGES)],
        suspects=[_cut_out(split, analysis, suspect) for suspect in analysis.suspects[:SUSPECTS]],
    )


def _image(split: Split, analysis: ErrorAnalysis, i: int) -> SampleImage:
    """Return an image with its misses, false alarms and hits at the best thresholds."""
    matches, outcomes = analysis.matches, analysis.outcomes
    index = matches.index
    rows = index.boxes_of(i)
    boxes = np.arange(rows.start, rows.stop)
    detections = np.flatnonzero((matches.image == i) & outcomes.confident)
    missed = [
        Box(_corners(index.box_xywh[b]), analysis.classes[index.box_class[b]], outcome="missed")
        for b in boxes[matches.regular[boxes] & ~outcomes.found[boxes]]
    ]
    false = [_detected(analysis, int(d), "false alarm") for d in detections[matches.false[detections]]]
    hits = [_detected(analysis, int(d), "hit") for d in detections[matches.box[detections] >= 0]]
    counts = (
        f"{_counted(outcomes.hits[i], 'hit')}, {_counted(outcomes.misses[i], 'missed', '')}, "
        f"{_counted(outcomes.false_alarms[i], 'false alarm')}"
    )
    return SampleImage(split.read_image(i), [*missed, *false, *hits][:MOST_BOXES], f"{index.file_name[i]}: {counts}")


def _cut_out(split: Split, analysis: ErrorAnalysis, suspect: Suspect) -> SampleImage:
    """Return the part of an image around a suspect, with the box and the detection that contradicts it."""
    matches = analysis.matches
    index, boxes = matches.index, []
    if suspect.box >= 0:
        label = analysis.classes[index.box_class[suspect.box]]
        boxes.append(Box(_corners(index.box_xywh[suspect.box]), label, outcome="annotated"))
    if suspect.detection >= 0:
        boxes.append(_detected(analysis, suspect.detection, "false alarm"))
    image = split.read_image(suspect.image)
    left, top, right, bottom = _surroundings(boxes, image.shape[1], image.shape[0])
    moved = [
        Box((x1 - left, y1 - top, x2 - left, y2 - top), box.label, box.score, outcome=box.outcome)
        for box in boxes
        for x1, y1, x2, y2 in [box.xyxy]
    ]
    words = ", ".join([box.label if box.score is None else f"detected {box.label} {box.score:.2f}" for box in boxes])
    caption = f"{suspect.kind}: {words}; {index.file_name[suspect.image]}"
    return SampleImage(image[top:bottom, left:right].copy(), moved, caption)


def _surroundings(boxes: Sequence[Box], width: int, height: int) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of boxes with as much around them as their longer side, inside the image."""
    corners = np.array([box.xyxy for box in boxes])
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    margin = max(_SURROUNDINGS * float((high - low).max()), _LEAST_SIDE)
    left, top = (int(max(0, value)) for value in np.floor(low - margin))
    right, bottom = (int(value) for value in np.ceil(high + margin))
    left, top = min(left, width - 1), min(top, height - 1)
    return left, top, max(left + 1, min(right, width)), max(top + 1, min(bottom, height))


def _detected(analysis: ErrorAnalysis, d: int, outcome: str) -> Box:
    matches = analysis.matches
    label = analysis.classes[matches.label[d]]
    return Box(_corners(matches.xywh[d]), label, score=float(matches.score[d]), outcome=outcome)


def _corners(xywh: Float64Array) -> tuple[float, float, float, float]:
    x, y, width, height = (float(value) for value in xywh)
    return x, y, x + width, y + height


def _counted(count: int, noun: str, plural: str = "s") -> str:
    return f"{count} {noun}{plural if count != 1 else ''}"
