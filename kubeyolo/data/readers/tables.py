"""Filling the tables of a split for formats that have no ids of their own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kubeyolo.data.raw import Noted, RawBoxes, RawCategories, RawImages, RawSplit

Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels."""


@dataclass
class LabelledImage:
    """An image and its boxes.

    Attributes:
        name: Its path relative to the image folder.
        width: Pixels of a row, or what stands in its place.
        height: Rows, alike.
        boxes: For each its class (a number or a name), [left, top, width, height] in pixels, and whether it is a crowd.
        without_box: Kinds of shapes that were left out, such as points and lines.
    """

    name: str
    width: Any = None
    height: Any = None
    boxes: list[tuple[Any, Box, int]] = field(default_factory=list)
    without_box: list[str] = field(default_factory=list)


def raw_split(where: str, images: Iterable[LabelledImage], classes: Sequence[str], by_name: bool) -> RawSplit:
    """Return the tables of a split: images numbered from 1 by their names, boxes from 1, classes from 0.

    Args:
        where: The file or folder that was read.
        images: The images with their boxes.
        classes: Names of classes in the order of their numbers.
        by_name: Whether the class of a box is a name; else it is a number.
    """
    number = {name: i for i, name in enumerate(classes)}
    rows = sorted(images, key=lambda image: image.name)
    found = [(i, *box) for i, image in enumerate(rows, 1) for box in image.boxes]
    count = len(found)
    boxes = RawBoxes(
        ids=list(range(1, count + 1)),
        image_ids=[i for i, _, _, _ in found],
        category_ids=[number[label] if by_name else label for _, label, _, _ in found],
        boxes=[list(box) for _, _, box, _ in found],
        areas=[None] * count,
        crowds=[crowd for _, _, _, crowd in found],
    )
    return RawSplit(
        where,
        RawCategories(list(range(len(classes))), list(classes), [None] * len(classes)),
        RawImages(
            list(range(1, len(rows) + 1)),
            [image.name for image in rows],
            [image.width for image in rows],
            [image.height for image in rows],
        ),
        boxes,
        noted=_shapes_without_box(where, rows),
    )


def _shapes_without_box(where: str, images: Sequence[LabelledImage]) -> tuple[Noted, ...]:
    kinds = Counter(kind for image in images for kind in image.without_box)
    if not kinds:
        return ()
    first = next(image.name for image in images if image.without_box)
    note = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return (Noted("shape_without_box", f"{where}: image {first!r}", kinds.total(), note),)


def with_orphans(split: RawSplit, label_files: Sequence[str]) -> RawSplit:
    """Return a split with the finding that label files have no image; they are left out."""
    if not label_files:
        return split
    noted = Noted("image_unknown", f"{split.where}: no image for the label file {label_files[0]!r}", len(label_files))
    return replace(split, noted=(*split.noted, noted))


def box_around(points: Sequence[tuple[float, float]]) -> Box:
    """Return the box around points; of points that are not numbers all four are NaN."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if not points or not all(map(math.isfinite, [*xs, *ys])):
        return (math.nan,) * 4
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
