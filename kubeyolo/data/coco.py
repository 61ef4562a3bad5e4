"""COCO annotation files in: one pass to arrays, and every way such a file can be wrong."""

from __future__ import annotations

import json
import logging
import os
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from kubeyolo.data.index import SplitIndex
from kubeyolo.errors import InputError

TOLERANCE = 1.0
"""Pixels by which a box may leave its image; it is clipped. Published COCO boxes overshoot by fractions."""

_LARGEST = 1 << 53
"""Integers below it are exact as floats."""

logger = logging.getLogger(__name__)

Record = dict[str, Any]


def read_coco(annotation_file: Path, image_folder: Path) -> tuple[SplitIndex, tuple[str, ...], tuple[int, ...]]:
    """Read and check the annotations of one split; image files are not opened.

    Args:
        annotation_file: COCO "instances" JSON. ``area`` defaults to width x height of the box, ``iscrowd`` to 0,
            segmentations are ignored. Boxes whose width or height is exactly 0 are left out with a warning: the
            published COCO train2017 has some.
        image_folder: The folder that every ``file_name`` must stay in.

    Returns:
        The index, the class names and the category ids, both ordered by category id.

    Raises:
        InputError: Naming the file, the first offending entry, its value, and how many more there are.
    """
    if not image_folder.is_dir():
        raise InputError(f"{image_folder}: no such folder; {annotation_file.name} needs its images there")
    document = _load(annotation_file)
    where = str(annotation_file)
    classes, category_ids = _read_categories(where, document["categories"])
    images = _read_images(where, document["images"], image_folder)
    boxes = _read_boxes(where, document["annotations"], images, category_ids)
    return _sorted_index(images, boxes), classes, category_ids


def refuse(where: str, bad: NDArray[Any] | Sequence[int], describe: Callable[[int], str], remedy: str) -> None:
    """Raise an InputError for the first of the positions ``bad``, with the number of the others; none is fine."""
    if len(bad) == 0:
        return
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    raise InputError(f"{where}: {describe(int(bad[0]))}{more}; {remedy}")


def _load(path: Path) -> dict[str, list[Record]]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such annotation file; expected annotations/<split>.json") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as strict:
        # Python's writer emits NaN and Infinity, which are no JSON: the box that holds them can be named.
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            raise InputError(f"{path}: not JSON ({strict}); export the annotations as COCO JSON again") from None
    if not isinstance(document, dict):
        raise InputError(f"{path}: not COCO: the top level is {_kind(document)}, not an object; export COCO instances")
    for key in ("images", "annotations", "categories"):
        if key not in document:
            raise InputError(f"{path}: not COCO: key {key!r} is missing; export COCO instances annotations")
        if not isinstance(document[key], list):
            raise InputError(f"{path}: not COCO: {key!r} is {_kind(document[key])}, not a list; export COCO instances")
        for position, record in enumerate(document[key]):
            if not isinstance(record, dict):
                raise InputError(
                    f"{path}: not COCO: {key}[{position}] is {_kind(record)}, not an object; export COCO instances"
                )
    return document


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."


def _column(where: str, table: str, records: list[Record], key: str) -> list[Any]:
    """Return ``key`` of every record; an entry without it is refused."""
    try:
        return [record[key] for record in records]
    except KeyError:
        bad = [i for i, record in enumerate(records) if key not in record]
        refuse(where, bad, lambda i: f"not COCO: {table}[{i}] has no {key!r}", "export COCO instances annotations")
        raise


def _integers(where: str, table: str, records: list[Record], key: str) -> NDArray[np.int64]:
    """Return an integer column; anything else in it is refused."""
    values = _column(where, table, records, key)
    if not values:
        return np.zeros(0, np.int64)
    try:
        array = np.array(values)
    except (ValueError, OverflowError):
        array = np.empty(0, object)
    if array.dtype != np.int64 or array.ndim != 1:
        bad = [i for i, v in enumerate(values) if type(v) is not int or not -(2**63) <= v < 2**63]
        refuse(
            where,
            bad,
            lambda i: f"{table}[{i}] has {key} {_shown(values[i])}, which is no 64-bit integer",
            f"write {key} as an integer",
        )
    return array.astype(np.int64)


def _duplicates(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of all but the first occurrence of each value, in order."""
    first = np.unique(values, return_index=True)[1]
    repeated = np.ones(len(values), bool)
    repeated[first] = False
    return np.flatnonzero(repeated)


def _first_places(values: list[str]) -> dict[str, int]:
    first: dict[str, int] = {}
    for i, value in enumerate(values):
        first.setdefault(value, i)
    return first


def _read_categories(where: str, records: list[Record]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    if not records:
        raise InputError(f"{where}: 'categories' is empty; list the classes with id and name")
    ids = _integers(where, "categories", records, "id")
    names = _column(where, "categories", records, "name")
    bad = [i for i, name in enumerate(names) if not isinstance(name, str) or not name.strip() or not _is_text(name)]
    refuse(where, bad, lambda i: f"category {ids[i]} has the name {_shown(names[i])}", "give every class a name")
    refuse(where, _duplicates(ids), lambda i: f"category id {ids[i]} is used twice ({names[i]!r})", "make ids unique")
    first = _first_places(names)
    bad = [i for i, name in enumerate(names) if first[name] != i]
    refuse(where, bad, lambda i: f"category name {names[i]!r} is used twice (id {ids[i]})", "make names unique")
    order = np.argsort(ids)
    return tuple(names[i] for i in order), tuple(int(ids[i]) for i in order)


@dataclass(frozen=True, eq=False)
class _Images:
    """The columns of ``images``, in file order; ``size`` (I, 2) is width, height."""

    ids: NDArray[np.int64]
    names: list[str]
    size: NDArray[np.int64]


def _read_images(where: str, records: list[Record], folder: Path) -> _Images:
    if not records:
        raise InputError(f"{where}: 'images' is empty; a split needs at least one image")
    ids = _integers(where, "images", records, "id")
    refuse(where, _duplicates(ids), lambda i: f"image id {ids[i]} is used twice (images[{i}])", "make ids unique")
    size = np.stack([_integers(where, "images", records, key) for key in ("width", "height")], 1)
    bad = np.flatnonzero(((size <= 0) | (size >= 2**31)).any(1))
    refuse(where, bad, lambda i: f"image {ids[i]} has the size {size[i, 0]} x {size[i, 1]}", "write its size in pixels")
    names = _file_names(where, ids, _column(where, "images", records, "file_name"), folder)
    return _Images(ids, names, size)


def _file_names(where: str, ids: NDArray[np.int64], names: list[Any], folder: Path) -> list[str]:
    """Return the normalised names; each must be a relative path that stays in ``folder``, and occur once."""
    bad = [i for i, name in enumerate(names) if not _is_name(name)]
    remedy = "name a file of the folder"
    refuse(where, bad, lambda i: f"image {ids[i]} has the file_name {_shown(names[i])}, which is no file name", remedy)
    bad = [i for i, name in enumerate(names) if name.startswith("/") or ".." in name.split("/")]
    remedy = f"file names must be relative to {folder} and stay in it"
    refuse(where, bad, lambda i: f"image {ids[i]} has the file_name {names[i]!r}, which leaves the folder", remedy)
    normal = [posixpath.normpath(name) for name in names]
    bad = _links_out(normal, folder)
    refuse(where, bad, lambda i: f"image {ids[i]} has the file_name {names[i]!r}, a link out of the folder", remedy)
    first = _first_places(normal)
    bad = [i for i, name in enumerate(normal) if first[name] != i]
    refuse(
        where,
        bad,
        lambda i: f"images {ids[first[normal[i]]]} and {ids[i]} have the same file_name {names[i]!r}",
        "list each file once",
    )
    return normal


def _is_name(name: object) -> bool:
    if not isinstance(name, str) or not name or "\0" in name or posixpath.normpath(name) == ".":
        return False
    return _is_text(name)


def _is_text(name: str) -> bool:
    """Tell whether a string can be written: JSON may hold halves of surrogate pairs."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _links_out(names: list[str], folder: Path) -> list[int]:
    """Return the positions of names that lead out of ``folder`` through a link of a file or a folder."""
    root = os.path.realpath(folder)
    inside: dict[str, bool] = {}

    def stays(path: str) -> bool:
        return os.path.commonpath([root, os.path.realpath(path)]) == root

    bad = []
    for i, name in enumerate(names):
        parent = posixpath.dirname(name)
        if parent not in inside:
            inside[parent] = not parent or stays(os.path.join(root, parent))
        path = os.path.join(root, name)
        if not inside[parent] or (os.path.islink(path) and not stays(path)):
            bad.append(i)
    return bad


@dataclass(frozen=True, eq=False)
class _Boxes:
    """The columns of ``annotations``, in file order; ``image`` is a position in ``images``."""

    ids: NDArray[np.int64]
    image: NDArray[np.int64]
    classes: NDArray[np.int64]
    xywh: NDArray[np.float64]
    area: NDArray[np.float64]
    crowd: NDArray[np.bool_]


def _lookup(keys: NDArray[np.int64], known: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the position of each key in ``known`` and the positions of keys that are not there."""
    order = np.argsort(known)
    place = np.minimum(np.searchsorted(known, keys, sorter=order), len(known) - 1)
    found = order[place]
    return found, np.flatnonzero(known[found] != keys)


def _read_boxes(where: str, records: list[Record], images: _Images, category_ids: tuple[int, ...]) -> _Boxes:
    ids = _integers(where, "annotations", records, "id")
    refuse(
        where, _duplicates(ids), lambda i: f"annotation id {ids[i]} is used twice (annotations[{i}])", "make ids unique"
    )
    image_ids = _integers(where, "annotations", records, "image_id")
    image, bad = _lookup(image_ids, images.ids)
    refuse(where, bad, lambda i: f"annotation {ids[i]} has the unknown image_id {image_ids[i]}", "add the image")
    categories = _integers(where, "annotations", records, "category_id")
    classes, bad = _lookup(categories, np.array(category_ids, np.int64))
    known = f"the categories are {', '.join(map(str, category_ids[:10]))}{' ...' if len(category_ids) > 10 else ''}"
    refuse(where, bad, lambda i: f"annotation {ids[i]} has the unknown category_id {categories[i]}", known)
    xywh = _clip(where, _read_xywh(where, records, ids), ids, image, images)
    area = _read_areas(where, records, ids, xywh)
    crowd = _read_crowd(where, records, ids)
    kept = _without_empty(where, ids, xywh)
    return _Boxes(ids[kept], image[kept], classes[kept], xywh[kept], area[kept], crowd[kept])


def _without_empty(where: str, ids: NDArray[np.int64], xywh: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which boxes have a width and a height, and tell of the others."""
    kept: NDArray[np.bool_] = (xywh[:, 2:] > 0).all(1)
    empty = np.flatnonzero(~kept)
    if len(empty):
        logger.warning(
            "%s: %d boxes of size zero are left out, the first is annotation %d", where, len(empty), ids[empty[0]]
        )
    return kept


def _is_number(value: object) -> bool:
    """Tell whether a value is a number; integers too large for a float are none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < _LARGEST
    return isinstance(value, float)


def _read_xywh(where: str, records: list[Record], ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the boxes (B, 4): four finite numbers, no size negative."""
    rows = _column(where, "annotations", records, "bbox")

    def name(i: int) -> str:
        return f"annotation {ids[i]} has the bbox {_shown(rows[i])}"

    try:
        array = np.array(rows)
    except (ValueError, OverflowError):
        array = np.empty(0, object)
    if rows and (array.dtype.kind not in "if" or array.shape != (len(rows), 4)):
        bad = [
            i
            for i, row in enumerate(rows)
            if not isinstance(row, list) or len(row) != 4 or not all(map(_is_number, row))
        ]
        refuse(where, bad, lambda i: f"{name(i)}, not four numbers", "write [left, top, width, height]")
    xywh = np.array(rows, np.float64).reshape(len(rows), 4)
    bad_rows = np.flatnonzero(~np.isfinite(xywh).all(1))
    refuse(where, bad_rows, lambda i: f"{name(i)}, which is not finite", "correct or remove it")
    bad_rows = np.flatnonzero((xywh[:, 2:] < 0).any(1))
    refuse(where, bad_rows, lambda i: f"{name(i)}, whose size is negative", "correct or remove it")
    return xywh


def _clip(
    where: str, xywh: NDArray[np.float64], ids: NDArray[np.int64], image: NDArray[np.int64], images: _Images
) -> NDArray[np.float64]:
    """Return the boxes cut at the border of their image; more than :data:`TOLERANCE` outside is refused."""
    size = images.size[image].astype(np.float64)
    low, high = xywh[:, :2], xywh[:, :2] + xywh[:, 2:]
    cut_low, cut_high = np.clip(low, 0, size), np.clip(high, 0, size)
    outside = (low < -TOLERANCE) | (high > size + TOLERANCE) | ((cut_high <= cut_low) & (xywh[:, 2:] > 0))

    def describe(i: int) -> str:
        (width, height), name = images.size[image[i]], images.names[image[i]]
        box = ", ".join(f"{value:.10g}" for value in xywh[i])
        return f"annotation {ids[i]} has the bbox [{box}], outside its image {name!r} of {width} x {height}"

    refuse(where, np.flatnonzero(outside.any(1)), describe, "correct or remove it")
    # Boxes that lie inside keep their exact numbers.
    moved = ((cut_low != low) | (cut_high != high)).any(1)
    xywh[moved] = np.concatenate([cut_low, cut_high - cut_low], 1)[moved]
    return xywh + 0.0


def _read_areas(
    where: str, records: list[Record], ids: NDArray[np.int64], xywh: NDArray[np.float64]
) -> NDArray[np.float64]:
    values = [record.get("area") for record in records]
    bad = [i for i, value in enumerate(values) if not (value is None or _is_number(value))]

    def describe(i: int) -> str:
        return f"annotation {ids[i]} has the area {_shown(values[i])}"

    refuse(where, bad, describe, "write the area in square pixels, or leave it out")
    area = np.array([np.nan if value is None else value for value in values], np.float64)
    absent = np.array([value is None for value in values], bool)
    area[absent] = (xywh[:, 2] * xywh[:, 3])[absent]
    bad_rows = np.flatnonzero(~(np.isfinite(area) & (area >= 0)))
    refuse(where, bad_rows, describe, "write the area in square pixels, or leave it out")
    return area + 0.0


def _read_crowd(where: str, records: list[Record], ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    values = [record.get("iscrowd", 0) for record in records]
    bad = [i for i, value in enumerate(values) if value not in (0, 1)]
    refuse(where, bad, lambda i: f"annotation {ids[i]} has iscrowd {_shown(values[i])}", "write 0 or 1")
    return np.array(values, bool)


def _sorted_index(images: _Images, boxes: _Boxes) -> SplitIndex:
    """Order images by file name, and boxes by image, then id."""
    order = np.array(sorted(range(len(images.names)), key=images.names.__getitem__), np.int64)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    image = rank[boxes.image]
    box_order = np.lexsort((boxes.ids, image))
    start = np.zeros(len(order) + 1, np.int64)
    np.cumsum(np.bincount(image, minlength=len(order)), out=start[1:])
    return SplitIndex(
        image_id=images.ids[order],
        file_name=[images.names[i] for i in order],
        width=images.size[order, 0].astype(np.int32),
        height=images.size[order, 1].astype(np.int32),
        box_start=start,
        box_id=boxes.ids[box_order],
        box_class=boxes.classes[box_order].astype(np.int32),
        box_xywh=np.ascontiguousarray(boxes.xywh[box_order]),
        box_area=boxes.area[box_order],
        box_crowd=boxes.crowd[box_order],
    )
