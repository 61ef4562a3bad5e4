"""AP50, precision and recall on slices of a split: by size of objects and images, brightness, crowding, and folder.

Slices by keys of the images use the keys that a stored data set keeps (``data.slice_keys``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from kubeyolo.arrays import BoolArray, Float64Array, Int64Array
from kubeyolo.data.index import SplitIndex
from kubeyolo.documents import read_json
from kubeyolo.evaluation.average_precision import average_precisions
from kubeyolo.evaluation.matching import Matches, near_pairs, strongest

MOST_VALUES = 12
"""Folders, or values of a key, that are slices of their own; if there are more, the rarest are one slice together."""

_SIDES = (16, 32, 96, 256)
_BOXES = (1, 2, 5, 10, 20)
_OVERLAPS = (0.1, 0.3)
_FEW = 4
_WHOLE = 10
"""Edges from this value are rounded to whole numbers."""


@dataclass(frozen=True)
class SliceResult:
    """The numbers of a slice; None where the slice has no boxes, or no detections at the best thresholds.

    ``AP50`` is the mean over the classes that have boxes in the slice. ``precision`` and ``recall`` are those at the
    best thresholds of the classes.
    """

    name: str
    images: int
    boxes: int
    AP50: float | None
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class SliceFamily:
    """Slices by one property, with the key and the title of the property."""

    key: str
    title: str
    slices: list[SliceResult]


@dataclass(frozen=True, eq=False)
class _Division:
    """The slice of each detection (D,), box (B,) and image (I,); -1 for none. Images may be in several slices: None."""

    key: str
    title: str
    names: Sequence[str]
    detections: Int64Array
    boxes: Int64Array
    images: Int64Array | None


def slice_families(matches: Matches, confident: BoolArray, brightness: Float64Array | None = None) -> list[SliceFamily]:
    """Return the numbers of all slices; properties that are the same everywhere are left out.

    Args:
        matches: Detections and boxes.
        confident: Whether each detection (D,) reaches the best threshold of its class.
        brightness: Mean grey value of each image (I,), NaN if unknown; None if it was not measured.
    """
    index = matches.index
    divisions = [
        _object_sizes(matches),
        _overlaps(matches),
        _image_division(matches, "crowding", "Boxes in the image", *_counts_of_boxes(matches)),
        _image_division(matches, "image_size", "Longer side of the image", *_thirds(_longer_sides(index), "px")),
        _image_division(matches, "image_shape", "Shape of the image", *_shapes(index)),
        _image_division(matches, "folder", "Folder of the image", *_folders(index)),
        *_facts(matches),
    ]
    if brightness is not None and not np.isnan(brightness).all():
        divided = _thirds(brightness, "of 255")
        divisions.append(_image_division(matches, "brightness", "Mean grey value of the image", *divided))
    families = [_family(matches, division, confident) for division in divisions]
    return [family for family in families if len(family.slices) > 1]


def _family(matches: Matches, division: _Division, confident: BoolArray) -> SliceFamily:
    classes, count = matches.classes, len(division.names)
    box_slice = np.where(matches.regular, division.boxes, -1)
    inside = box_slice >= 0
    group = box_slice[inside] * classes + matches.index.box_class[inside]
    totals = np.bincount(group, minlength=count * classes)
    counted = ~matches.ignored & (division.detections >= 0)
    hit = matches.box >= 0
    group = division.detections[counted] * classes + matches.label[counted]
    precisions = average_precisions(group, hit[counted], totals).reshape(count, classes)
    boxes = totals.reshape(count, classes).sum(axis=1)
    sure = counted & confident
    detected = np.bincount(division.detections[sure], minlength=count)
    found = np.bincount(division.detections[sure & hit], minlength=count)
    images = _images(matches, division, box_slice)
    return SliceFamily(
        division.key,
        division.title,
        [
            SliceResult(
                name=name,
                images=int(images[i]),
                boxes=int(boxes[i]),
                AP50=float(np.nanmean(precisions[i])) if boxes[i] else None,
                precision=float(found[i] / detected[i]) if detected[i] else None,
                recall=float(found[i] / boxes[i]) if boxes[i] else None,
            )
            for i, name in enumerate(division.names)
            if images[i]
        ],
    )


def _images(matches: Matches, division: _Division, box_slice: Int64Array) -> Int64Array:
    """Return the number of images of each slice; for slices of boxes, the images with such a box."""
    count = len(division.names)
    if division.images is not None:
        return np.bincount(division.images[division.images >= 0], minlength=count)
    inside = box_slice >= 0
    pairs = np.unique(box_slice[inside] * len(matches.index) + matches.index.box_image()[inside])
    return np.bincount(pairs // max(1, len(matches.index)), minlength=count)


def _image_division(matches: Matches, key: str, title: str, images: Int64Array, names: Sequence[str]) -> _Division:
    return _Division(key, title, names, images[matches.image], images[matches.index.box_image()], images)


def _object_sizes(matches: Matches) -> _Division:
    """Divide by the root of the area; a detection has the size of the box that it found, otherwise its own."""
    boxes = _bins(np.sqrt(np.clip(matches.index.box_xywh[:, 2:], 0, None).prod(axis=1)), _SIDES)
    detections = _bins(np.sqrt(np.clip(matches.xywh[:, 2:], 0, None).prod(axis=1)), _SIDES)
    names = _names(_SIDES, "px")
    return _Division(
        "object_size", "Root of the area of the object", names, _of_box(matches, boxes, detections), boxes, None
    )


def _overlaps(matches: Matches) -> _Division:
    """Divide boxes by their largest IoU with another box of the image; a detection has the slice of its nearest box."""
    index = matches.index
    pairs, _ = near_pairs(index, index.box_image(), index.box_class.astype(np.int64), index.box_xywh)
    pairs = pairs.select(pairs.detection != pairs.box)
    _, iou = strongest(pairs.detection, pairs.box, pairs.iou, index.boxes)
    boxes = _bins(iou, _OVERLAPS)
    near, _ = strongest(matches.near.detection, matches.near.box, matches.near.iou, len(matches.score))
    others = np.where(near >= 0, boxes[near], 0) if index.boxes else np.zeros(len(near), np.int64)
    names = ("apart from others, IoU under 0.1", "IoU 0.1 to 0.3 with another", "IoU from 0.3 with another")
    return _Division(
        "overlap", "Overlap of the object with another", names, _of_box(matches, boxes, others), boxes, None
    )


def _of_box(matches: Matches, boxes: Int64Array, others: Int64Array) -> Int64Array:
    """Return the slice of the box that each detection found, and for the other detections ``others``."""
    return np.where(matches.box >= 0, boxes[matches.box], others) if matches.index.boxes else others


def _counts_of_boxes(matches: Matches) -> tuple[Int64Array, Sequence[str]]:
    counts = np.bincount(matches.index.box_image()[matches.regular], minlength=len(matches.index))
    names = ("no boxes", *(_range(low, high) for low, high in zip(_BOXES, [*_BOXES[1:], None], strict=True)))
    return _bins(counts.astype(np.float64), _BOXES), names


def _range(low: int, high: int | None) -> str:
    if high is None:
        return f"{low} or more"
    return str(low) if high == low + 1 else f"{low} to {high - 1}"


def _longer_sides(index: SplitIndex) -> Float64Array:
    return np.maximum(index.width, index.height).astype(np.float64)


def _shapes(index: SplitIndex) -> tuple[Int64Array, Sequence[str]]:
    wider = np.sign(index.width.astype(np.int64) - index.height).astype(np.int64)
    return wider + 1, ("taller than wide", "square", "wider than tall")


def _thirds(values: Float64Array, unit: str) -> tuple[Int64Array, Sequence[str]]:
    """Divide images by thirds of their values, or by single values if there are few; -1 for NaN."""
    known = ~np.isnan(values)
    distinct = np.unique(values[known])
    if len(distinct) <= _FEW:
        slices, names = np.searchsorted(distinct, values), [f"{value:g} {unit}" for value in distinct]
    else:
        edges = np.unique(np.quantile(values[known], [1 / 3, 2 / 3]))
        if edges.min() >= _WHOLE:
            edges = np.unique(edges.round())
        slices, names = _bins(values, edges.tolist()), _names(edges.tolist(), unit)
    return np.where(known, slices, -1), names


def _folders(index: SplitIndex) -> tuple[Int64Array, Sequence[str]]:
    return _values([str(PurePosixPath(name).parent) for name in index.file_name], "all other folders")


def _facts(matches: Matches) -> list[_Division]:
    """Divide images by each key of their records that the data set keeps: many numbers by thirds, else by values."""
    records = [read_json(facts, "image_facts") for facts in matches.index.image_facts or ()]
    divisions = []
    for number, key in enumerate(dict.fromkeys(key for record in records for key in record)):
        values = [record.get(key) for record in records]
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        if len(set(numbers)) > _FEW and all(value is None for value in values if value not in numbers):
            measured = np.array([np.nan if value is None else float(value) for value in values])
            divided = _thirds(measured, "")
        else:
            divided = _values([_text(value) for value in values], "all other values")
        divisions.append(_image_division(matches, f"key_{number}", f"Key {key} of the image", *divided))
    return divisions


def _text(value: object) -> str:
    if value is None:
        return "no value"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _values(values: Sequence[str], others: str) -> tuple[Int64Array, Sequence[str]]:
    """Divide images by their values; the rarest values are one slice with the name ``others``."""
    counts = Counter(values)
    kept = sorted(counts, key=lambda value: (-counts[value], value))
    if len(kept) > MOST_VALUES:
        kept = kept[: MOST_VALUES - 1]
    number = {value: i for i, value in enumerate(kept)}
    names = [*kept, others] if len(kept) < len(counts) else kept
    return np.array([number.get(value, len(kept)) for value in values], np.int64), names


def _bins(values: Float64Array, edges: Sequence[float]) -> Int64Array:
    return np.searchsorted(np.asarray(edges, np.float64), values, side="right").astype(np.int64)


def _names(edges: Sequence[float], unit: str) -> list[str]:
    inner = [f"{low:g} to {high:g} {unit}" for low, high in zip(edges, edges[1:], strict=False)]
    return [name.strip() for name in (f"under {edges[0]:g} {unit}", *inner, f"from {edges[-1]:g} {unit}")]
