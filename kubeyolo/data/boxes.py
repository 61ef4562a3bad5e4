"""Converts the boxes of one split to arrays: in pixels, clipped to their images, without duplicates."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kubeyolo.arrays import BoolArray, Float64Array, Int64Array
from kubeyolo.data.box_forms import SYSTEMATIC_LEAST, TOLERANCE, in_pixels
from kubeyolo.data.columns import duplicates, plain, read_keys, real_number, refuse, shown, whole_number
from kubeyolo.data.findings import Findings
from kubeyolo.data.masks import mask_box
from kubeyolo.data.raw import RawBoxes
from kubeyolo.formats import share_text

_SYSTEMATIC_BEYOND, _SYSTEMATIC_OFF = 1 / 3, 0.1
"""The cause is systematic if larger shares of the boxes are far beyond their image, or entirely outside it."""

_FAR_PIXELS, _FAR_SHARE = 3.0, 0.03
"""Pixels, and share of the side: careless drawing does not explain a box that extends further beyond its image."""

_LARGEST = 2.0**31
"""A larger absolute value cannot be a coordinate in pixels."""

_CROWD_SHARE = 0.05
_WHOLE_SHARE, _WHOLE_LEAST, _WHOLE_COVER = 0.5, 10, 0.98
_ROUNDING = 0.5
"""A negative width or height of up to this number of pixels is a rounding error, not a pair of swapped corners."""

_FORMS = (
    ("x", "y", "width", "height"),
    ("left", "top", "width", "height"),
    ("x", "y", "w", "h"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
)
_FAR_CORNERS = frozenset({"xmax", "x2", "right"})


@dataclass(frozen=True, eq=False)
class Boxes:
    """The annotations of a split (B) in file order.

    Attributes:
        ids: int64, unique; numbered from 1 in file order if the ids of the file cannot be used.
        image: int64: position of the image in the table of images.
        classes: int64: class number.
        xywh: float64 (B, 4): left, top, width, height in pixels.
        area: float64: square pixels.
        crowd: bool.
        has_ids: Whether the ids come from the file.
    """

    ids: Int64Array
    image: Int64Array
    classes: Int64Array
    xywh: Float64Array
    area: Float64Array
    crowd: BoolArray
    has_ids: bool = True

    def select(self, mask: BoolArray) -> Boxes:
        """Return the boxes for which the mask (B,) is true."""
        if mask.all():
            return self
        columns = {name: getattr(self, name)[mask] for name in ("ids", "image", "classes", "xywh", "area", "crowd")}
        return replace(self, **columns)


@dataclass(frozen=True, eq=False)
class ImagesOfBoxes:
    """The images to which boxes belong: annotation file, file names, and sizes (I, 2) as width and height."""

    where: str
    names: Sequence[str]
    size: Int64Array


def read_boxes(
    raw: RawBoxes, image: Int64Array, classes: Int64Array, images: ImagesOfBoxes, findings: Findings, assumed: str = ""
) -> Boxes:
    """Return the boxes of a split, corrected if the actions of the findings allow it.

    Args:
        raw: The annotations as they were read.
        image: Position of the image of each annotation, -1 if the file does not list the image.
        classes: Class number of each annotation; all classes are known.
        images: The images.
        findings: Receives the findings.
        assumed: The form of the boxes of another split; see :func:`kubeyolo.data.box_forms.in_pixels`.

    Raises:
        InputError: A box is not four numbers, or a crowd flag is not 0 or 1.
    """
    where = images.where
    ids = _read_ids(raw, where, findings)

    def label(i: int) -> str:
        return f"{where}: annotation {plain(raw.ids[i]) if raw.ids[i] is not None else f'number {i}'}"

    def name(i: int) -> str:
        if i in masked:
            return f"{label(i)} has a mask with the box {_box_text(xywh[i].tolist())}"
        return f"{label(i)} has the bbox {_box_text(raw.boxes[i])}"

    unlisted = np.flatnonzero(image < 0)
    findings.add_cases("image_unknown", unlisted, lambda i: f"{label(i)} of image {shown(raw.image_ids[i])}")
    masked: set[int] = set()
    xywh, has_box = _read_xywh(raw, name, label, masked, findings)
    crowd = _read_crowd(raw, where, findings)
    kept = has_box & (image >= 0)
    at = np.flatnonzero(kept)
    has_ids = ids is not None
    numbers = np.arange(1, len(raw.ids) + 1, dtype=np.int64) if ids is None else ids
    boxes = Boxes(numbers, image, classes, xywh, _read_areas(raw, where, findings), crowd, has_ids).select(kept)

    def name_kept(i: int) -> str:
        return name(int(at[i]))

    size = images.size[boxes.image].astype(np.float64)
    boxes = replace(boxes, xywh=in_pixels(boxes.xywh, size, boxes.area, name_kept, findings, assumed))
    boxes = _in_order(boxes, name_kept, findings)
    boxes, rest = _within_images(boxes, images, name_kept, findings)
    at = at[rest]
    boxes, rest = _once(boxes, lambda i: f"{label(int(at[i]))} in image {images.names[boxes.image[i]]!r}", findings)
    at = at[rest]
    _note_habits(boxes, images, lambda i: label(int(at[i])), findings)
    return boxes


def _box_text(value: Any) -> str:
    """Return a box for a message, with at most 10 digits for each number."""
    if isinstance(value, list | tuple) and all(type(each) in (int, float) for each in value):
        text = f"[{', '.join(f'{each:.10g}' if isinstance(each, float) else str(each)[:40] for each in value[:6])}"
        return f"{text}]" if len(value) <= 6 else f"{text}, ...]"
    return shown(value)


def _read_ids(raw: RawBoxes, where: str, findings: Findings) -> Int64Array | None:
    """Return the ids of the file if they are unique numbers; None if the boxes must be renumbered."""

    def describe(i: int) -> str:
        return f"{where}: annotations[{i}] has id {shown(raw.ids[i])}"

    if any(value is None for value in raw.ids):
        absent = [i for i, value in enumerate(raw.ids) if value is None]
        findings.add_cases("id_twice", absent, lambda i: f"{where}: annotations[{i}] has no id")
        return None
    keys = read_keys(raw.ids, describe)
    findings.add_cases("number_as_text", keys.mended, describe)
    if keys.texts is not None:
        findings.add("id_as_text", describe(0), len(keys.texts))
        return None
    repeated = duplicates(keys.numbers)
    findings.add_cases("id_twice", repeated, lambda i: f"{where}: annotation id {plain(raw.ids[i])} is used twice")
    return None if len(repeated) else keys.numbers


def _read_xywh(
    raw: RawBoxes, name: Callable[[int], str], label: Callable[[int], str], masked: set[int], findings: Findings
) -> tuple[Float64Array, BoolArray]:
    """Return the boxes (B, 4), and whether each row has finite values; add rows with boxes from masks to ``masked``."""
    xywh = None if raw.masks else _numbers(raw.boxes)
    has_box = np.ones(len(raw.boxes), bool)
    if xywh is None:
        xywh = np.zeros((len(raw.boxes), 4))
        positions: dict[str, list[int]] = {"": [], "mask": [], "absent": [], "form": [], "bad": []}
        for i, value in enumerate(raw.boxes):
            row, code = _box_of(value, raw.masks.get(i))
            if row is not None:
                xywh[i] = row
            has_box[i] = row is not None
            positions[code].append(i)
        refuse(positions["bad"], lambda i: f"{name(i)}, not four numbers", "write [left, top, width, height]")
        masked.update(positions["mask"])
        findings.add_cases("box_form", positions["form"], name)
        findings.add_cases("box_from_mask", positions["mask"], label)
        findings.add_cases("box_absent", positions["absent"], label)
    odd = np.flatnonzero(has_box & ~(np.abs(xywh) <= _LARGEST).all(1))
    findings.add_cases("box_not_finite", odd, name)
    has_box[odd] = False
    return np.where(has_box[:, None], xywh, 0.0), has_box


def _numbers(rows: Sequence[Any]) -> Float64Array | None:
    """Return rows of four numbers as an array, or None if a row is not four numbers."""
    if not len(rows):
        return np.zeros((0, 4))
    try:
        array = np.array(rows)
    except (ValueError, OverflowError):
        return None
    if array.dtype.kind not in "if" or array.shape != (len(rows), 4):
        return None
    return array.astype(np.float64)


def is_without_box(value: Any) -> bool:
    """Tell whether a value stands for a missing box: null, an empty value, or four zeros or nulls."""
    if isinstance(value, list | tuple):
        return len(value) in (0, 4) and all(
            each is None or (type(each) in (int, float) and each == 0) for each in value
        )
    return value is None or (isinstance(value, str | dict) and not value)


def _box_of(value: Any, mask: Any) -> tuple[Sequence[float] | None, str]:
    """Return a box, and how it was written: "" for a list of four numbers, "form", "mask", "absent" or "bad"."""
    if is_without_box(value):
        box = mask_box(mask) if mask else None
        if box:
            return box, "mask"
        return (value, "") if value and None not in value else (None, "absent")
    keys: tuple[str, ...] = ()
    parts: Sequence[Any] = ()
    form = "form"
    if isinstance(value, list | tuple):
        parts = value
        form = "form" if any(isinstance(each, str) for each in value) else ""
    elif isinstance(value, str):
        parts = value.strip().strip("[]()").replace(",", " ").split()
    elif isinstance(value, dict):
        keys = next((keys for keys in _FORMS if all(key in value for key in keys)), ())
        parts = [value[key] for key in keys]
    numbers = [number for part in parts if (number := real_number(part)) is not None]
    if len(parts) != 4 or len(numbers) != 4:
        return None, "bad"
    left, top, third, fourth = numbers
    return ([left, top, third - left, fourth - top] if _FAR_CORNERS.intersection(keys) else numbers), form


def _read_areas(raw: RawBoxes, where: str, findings: Findings) -> Float64Array:
    """Return the areas, NaN for absent areas."""
    try:
        area = np.array([np.nan if value is None else value for value in raw.areas])
    except (TypeError, ValueError, OverflowError):
        area = np.empty(0, object)
    if area.dtype.kind not in "if" or area.ndim != 1:
        numbers = [real_number(value) for value in raw.areas]
        area = np.array([np.nan if number is None else number for number in numbers], np.float64)
        texts = [i for i, value in enumerate(raw.areas) if isinstance(value, str) and numbers[i] is not None]
        findings.add_cases(
            "number_as_text",
            texts,
            lambda i: f"{where}: annotation {plain(raw.ids[i])} has the area {shown(raw.areas[i])}",
        )
    return area.astype(np.float64)


def _read_crowd(raw: RawBoxes, where: str, findings: Findings) -> BoolArray:
    def describe(i: int) -> str:
        return f"{where}: annotation {plain(raw.ids[i])} has iscrowd {shown(raw.crowds[i])}"

    try:
        kinds = set(map(type, raw.crowds))
        is_plain = kinds <= {int} and set(raw.crowds) <= {0, 1}
    except TypeError:
        is_plain = False
    if is_plain:
        return np.array(raw.crowds, bool)
    values = [0 if value is None or value == "" else value for value in raw.crowds]
    numbers = [int(value) if isinstance(value, bool) else whole_number(value) for value in values]
    refuse([i for i, number in enumerate(numbers) if number not in (0, 1)], describe, "write 0 or 1")
    mended = [i for i, value in enumerate(values) if isinstance(value, str | float)]
    findings.add_cases("number_as_text", mended, describe)
    return np.array(numbers, bool)


def _in_order(boxes: Boxes, name: Callable[[int], str], findings: Findings) -> Boxes:
    """Return the boxes with their corners swapped if a width or height is negative beyond rounding."""
    xywh = boxes.xywh
    swapped = (xywh[:, 2:] <= -_ROUNDING).any(1)
    if not swapped.any():
        return boxes
    findings.add_cases("box_swapped", np.flatnonzero(swapped), name)
    ends = xywh[:, :2] + xywh[:, 2:]
    low, high = np.minimum(xywh[:, :2], ends), np.maximum(xywh[:, :2], ends)
    return replace(boxes, xywh=np.where(swapped[:, None], np.concatenate([low, high - low], 1), xywh))


def _within_images(
    boxes: Boxes, images: ImagesOfBoxes, name: Callable[[int], str], findings: Findings
) -> tuple[Boxes, BoolArray]:
    """Return the boxes clipped to their image, without empty boxes, and a mask of the rows that remain."""
    size = images.size[boxes.image].astype(np.float64)
    xywh = boxes.xywh
    low, high = xywh[:, :2], xywh[:, :2] + xywh[:, 2:]
    cut_low, cut_high = np.clip(low, 0, size), np.clip(high, 0, size)
    beyond = ((low < -TOLERANCE) | (high > size + TOLERANCE)).any(1) & (xywh[:, 2:] > 0).all(1)
    sides = cut_high - cut_low
    empty = (sides <= 0).any(1) | (beyond & (sides < 1).any(1))
    off = empty & beyond
    # Clipping a few pixels does no harm, however many boxes are affected.
    slip = np.maximum(_FAR_PIXELS, _FAR_SHARE * size)
    far = beyond & ((low < -slip) | (high > size + slip)).any(1)

    def describe(i: int) -> str:
        (width, height), file = images.size[boxes.image[i]], images.names[boxes.image[i]]
        return f"{name(i)}, outside its image {file!r} of {width} x {height}"

    count = len(xywh)
    if beyond.sum() >= SYSTEMATIC_LEAST and (
        far.sum() > _SYSTEMATIC_BEYOND * count or off.sum() > _SYSTEMATIC_OFF * count
    ):
        findings.add_cases("boxes_outside", np.flatnonzero(beyond), describe)
    else:
        findings.add_cases("box_outside", np.flatnonzero(beyond & ~empty), describe)
    findings.add_cases("box_empty", np.flatnonzero(empty), name)
    # Boxes that lie inside keep their exact numbers.
    moved = ((cut_low != low) | (cut_high != high)).any(1)
    cut = np.where(moved[:, None], np.concatenate([cut_low, sides], 1), xywh) + 0.0
    area = _areas(boxes.area, cut, xywh, beyond & ~empty, name, findings)
    return replace(boxes, xywh=cut, area=area).select(~empty), ~empty


def _areas(
    area: Float64Array,
    cut: Float64Array,
    uncut: Float64Array,
    beyond: BoolArray,
    name: Callable[[int], str],
    findings: Findings,
) -> Float64Array:
    """Return the areas; an area that is absent or does not fit its box is replaced by the area of the box."""
    box = cut[:, 2] * cut[:, 3]
    whole = np.maximum(uncut[:, 2] * uncut[:, 3], box)
    absent = np.isnan(area)
    with np.errstate(invalid="ignore"):
        wrong = ~absent & (box > 0) & ((area <= 0) | ((area <= 1) & (box >= 10)) | (area > 1.1 * whole + 4))
    wrong |= ~absent & ~np.isfinite(area)
    findings.add_cases("area_wrong", np.flatnonzero(wrong), lambda i: f"{name(i)} and the area {area[i]:.6g}")
    result = np.where(absent | wrong, box, area)
    return np.where(beyond, np.minimum(result, box), np.maximum(result, 0)) + 0.0


def _once(boxes: Boxes, name: Callable[[int], str], findings: Findings) -> tuple[Boxes, BoolArray]:
    """Return the boxes without duplicates (same image, class, box and crowd), and a mask of the rows that remain."""
    rows = np.empty((len(boxes.ids), 6), np.float64)
    rows[:, 0] = boxes.image
    rows[:, 1] = 2 * boxes.classes + boxes.crowd
    rows[:, 2:] = boxes.xywh
    # The duplicate with the lowest id is kept, or without ids the smallest area: file order does not matter.
    order = np.lexsort((boxes.ids if boxes.has_ids else boxes.area, *rows.T[::-1]))
    ordered = rows[order]
    repeated = np.zeros(len(rows), bool)
    repeated[order[1:]] = (ordered[1:] == ordered[:-1]).all(1)
    findings.add_cases("box_double", np.flatnonzero(repeated), name)
    return boxes.select(~repeated), ~repeated


def _note_habits(boxes: Boxes, images: ImagesOfBoxes, label: Callable[[int], str], findings: Findings) -> None:
    """Add findings about boxes that are valid but rarely intended: many crowds, or many boxes of whole images."""
    count = len(boxes.ids)
    crowds = int(boxes.crowd.sum())
    if crowds > _CROWD_SHARE * count:
        share = f"{share_text(crowds / count, 0)} of the boxes in {posixpath.basename(images.where)}"
        findings.add_cases("crowd_many", np.flatnonzero(boxes.crowd), label, share)
    size = images.size[boxes.image].astype(np.float64)
    whole = (boxes.xywh[:, 2:] >= _WHOLE_COVER * size).all(1)
    if whole.sum() >= max(_WHOLE_LEAST, _WHOLE_SHARE * count):
        findings.add_cases(
            "box_whole_image",
            np.flatnonzero(whole),
            lambda i: f"{label(i)} in image {images.names[boxes.image[i]]!r}",
        )
