"""Reads the detections of any program from a COCO results file, and checks them against a split of a data set."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kubeyolo.data.dataset import Dataset
from kubeyolo.documents import NotJson, read_json, read_large_json
from kubeyolo.errors import InputError
from kubeyolo.evaluation.coco_eval import Detection
from kubeyolo.regular_files import LIST_SIZE, read_regular

_KEYS = ("image_id", "category_id", "bbox", "score")
_BOX_NUMBERS = 4
_LONGEST = 60
_LARGEST = 1e6
"""Largest number of pixels in a box; no image is as wide."""


def read_detections(content: bytes, name: str, dataset: Dataset, split: str) -> list[Detection]:
    """Return the detections of a file, with the numeric ids of the stored data set.

    In the file, the ids are those of the data set's annotations, numbers or texts.

    Args:
        content: Content of the file.
        name: Name of the file, for errors.
        dataset: The data set, or those of its classes that are evaluated; detections of other classes are left out.
        split: The split.

    Raises:
        InputError: The file is not a COCO results file, has no detections, or its ids are not those of the split.
    """
    rows = _rows(content, name)
    index = dataset.index(split)
    image_ids = dict(zip(index.image_key or index.image_id.tolist(), index.image_id.tolist(), strict=True))
    whole = getattr(dataset, "whole", dataset).manifest
    own_ids: Sequence[Hashable] = whole.category_keys or whole.category_ids
    category_ids = dict(zip(own_ids, whole.category_ids, strict=True))
    _check_images(rows, image_ids, name, dataset, split)
    _check_categories(rows, category_ids, name, dataset, whole.classes)
    wanted = frozenset(dataset.manifest.category_ids)
    return [
        Detection(image_id=image_ids[row["image_id"]], category_id=category, bbox=row["bbox"], score=row["score"])
        for row in rows
        if (category := category_ids[row["category_id"]]) in wanted
    ]


def read_file(path: Path) -> bytes:
    """Return the content of a results file.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        return read_regular(path, LIST_SIZE)
    except OSError as error:
        raise InputError(f"--detections {path}: cannot be read: {error.strerror}") from error


def _rows(content: bytes, name: str) -> list[dict[str, Any]]:
    """Return the entries of a file, with ids, boxes and scores of the right types."""
    if not content.strip():
        raise InputError(f"{name}: the file is empty; expected a COCO results file, a list of detections as JSON")
    rows = _parsed(content, name)
    if isinstance(rows, dict) and "annotations" in rows and "images" in rows:
        raise InputError(f"{name}: this is a file of annotations, not of detections; give a COCO results file")
    if not isinstance(rows, list):
        raise InputError(
            f"{name}: expected a COCO results file, a list of {{{', '.join(_KEYS)}}}; found {type(rows).__name__}"
        )
    if not rows:
        raise InputError(f"{name}: has no detections; AP of an empty list is 0, and usually a program has failed")
    for number, row in enumerate(rows):
        fault = _fault(row)
        if fault:
            raise InputError(f"{name}: detection {number} {fault}")
    return rows


def _parsed(content: bytes, name: str) -> Any:
    try:
        return read_large_json(content, name)
    except NotJson:
        # The other parser also reads NaN and a byte order mark, so that the error can name the entry.
        return read_json(content, name, "expected a COCO results file", LIST_SIZE)


def _fault(row: Any) -> str:
    """Return the fault of an entry as words that follow its number; empty if the entry is valid."""
    if not isinstance(row, dict):
        return f"is {_shown(row)}; expected an object with {', '.join(_KEYS)}"
    for key in _KEYS:
        if key not in row:
            other = ", but a segmentation: boxes are evaluated" if key == "bbox" and "segmentation" in row else ""
            return f"has no {key}{other}; it needs {', '.join(_KEYS)}"
    for key in ("image_id", "category_id"):
        if isinstance(row[key], float) and row[key].is_integer():
            row[key] = int(row[key])
        if isinstance(row[key], bool) or not isinstance(row[key], int | str):
            return f"has {key} {_shown(row[key])}; expected the id of the data set's annotations"
    box = row["bbox"]
    if not isinstance(box, list) or len(box) != _BOX_NUMBERS:
        return f"has bbox {_shown(box)}; expected 4 numbers: left, top, width and height in pixels"
    if not all(_is_number(value, -_LARGEST, _LARGEST) for value in box):
        return f"has bbox {_shown(box)}; expected finite numbers of pixels, at most {_LARGEST:.0f}"
    if box[2] < 0 or box[3] < 0:
        return f"has bbox {_shown(box)} with a negative size; COCO's boxes are left, top, width, height, not corners"
    if not _is_number(row["score"], 0, 1):
        return f"has score {_shown(row['score'])}; expected a number from 0 to 1, such as 0.95 for 95 %"
    return ""


def _is_number(value: Any, least: float, most: float) -> bool:
    # NaN is not in any range.
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _check_images(
    rows: Sequence[Mapping[str, Any]], known: Mapping[Any, int], name: str, dataset: Dataset, split: str
) -> None:
    """Refuse images that are not in the split; the message names a split that has all of them, if there is one."""
    ids = {row["image_id"] for row in rows}
    unknown = ids - known.keys()
    if not unknown:
        return
    number, first = next((n, row["image_id"]) for n, row in enumerate(rows) if row["image_id"] in unknown)
    others = [each for each in dataset.manifest.splits if each != split]
    fitting = next((each for each in others if ids <= _image_ids(dataset, each)), None)
    remedy = (
        f"all of them are in the split {fitting}: give --split {fitting}"
        if fitting
        else "evaluate detections on the split on which they were computed, with the ids of its annotations"
    )
    raise InputError(
        f"{name}: {len(unknown)} of {len(ids)} image ids are not in the split {split} of data set "
        f"{dataset.manifest.name!r}, the first in detection {number}: {_shown(first)}{_example(known)}; {remedy}"
    )


def _image_ids(dataset: Dataset, split: str) -> frozenset[Any]:
    index = dataset.index(split)
    return frozenset(index.image_key or index.image_id.tolist())


def _check_categories(
    rows: Sequence[Mapping[str, Any]], known: Mapping[Any, int], name: str, dataset: Dataset, classes: Sequence[str]
) -> None:
    ids = {row["category_id"] for row in rows}
    unknown = ids - known.keys()
    if not unknown:
        return
    number, first = next((n, row["category_id"]) for n, row in enumerate(rows) if row["category_id"] in unknown)
    are_numbers = all(isinstance(each, int) and 0 <= each < len(classes) for each in ids)
    remedy = (
        "the file seems to number the classes from 0; give the ids of the annotations"
        if are_numbers
        else "give the ids of the categories in the data set's annotations"
    )
    raise InputError(
        f"{name}: {len(unknown)} of {len(ids)} category ids are not in data set {dataset.manifest.name!r}, the first "
        f"in detection {number}: {_shown(first)}{_example(known)}; {remedy}"
    )


def _example(known: Mapping[Any, int]) -> str:
    return f", while the data set has ids such as {_shown(next(iter(known)))}" if known else ""


def _shown(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
