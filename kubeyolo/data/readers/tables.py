"""Code shared by readers of formats without ids: tables from images and boxes, and classes from all splits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeVar

from kubeyolo.data.layouts.types import Layout, SplitFiles
from kubeyolo.data.raw import RawBoxes, RawCategories, RawFinding, RawImages, RawSplit
from kubeyolo.errors import InputError

T = TypeVar("T")

Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels."""


@dataclass
class LabelledImage:
    """An image and its boxes.

    Attributes:
        name: Its path relative to the image folder.
        width: Width in pixels, or whatever the file has instead.
        height: Height in pixels, or whatever the file has instead.
        boxes: For each box its class (a number or a name), [left, top, width, height] in pixels, and 1 for a crowd.
        without_box: Kinds of the shapes that were left out, such as points and lines.
    """

    name: str
    width: Any = None
    height: Any = None
    boxes: list[tuple[Any, Box, int]] = field(default_factory=list)
    without_box: list[str] = field(default_factory=list)


def raw_split(
    where: str,
    images: Iterable[LabelledImage],
    classes: Sequence[str],
    by_name: bool,
    findings: Iterable[RawFinding] = (),
) -> RawSplit:
    """Return the tables of a split: images numbered from 1 by their names, boxes from 1, classes from 0.

    Args:
        where: The file or folder of the annotations.
        images: The images with their boxes.
        classes: Names of classes in the order of their numbers.
        by_name: Whether the class of a box is a name; otherwise it is a number.
        findings: Findings from the reader, except the finding about shapes without a box, which is added.
    """
    number = {name: i for i, name in enumerate(classes)}
    rows = sorted(images, key=lambda image: image.name)
    labelled = [(i, *box) for i, image in enumerate(rows, 1) for box in image.boxes]
    count = len(labelled)
    boxes = RawBoxes(
        ids=list(range(1, count + 1)),
        image_ids=[i for i, _, _, _ in labelled],
        category_ids=[number[label] if by_name else label for _, label, _, _ in labelled],
        boxes=[list(box) for _, _, box, _ in labelled],
        areas=[None] * count,
        crowds=[crowd for _, _, _, crowd in labelled],
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
        findings=(*_shapes_without_box(where, rows), *findings),
    )


def _shapes_without_box(where: str, images: Sequence[LabelledImage]) -> tuple[RawFinding, ...]:
    kinds = Counter(kind for image in images for kind in image.without_box)
    if not kinds:
        return ()
    first = next(image.name for image in images if image.without_box)
    note = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return (RawFinding("shape_without_box", f"{where}: image {first!r}", kinds.total(), note),)


def labels_without_image(where: str, label_files: Sequence[str]) -> list[RawFinding]:
    """Return the finding about label files without an image, which are left out; an empty list if there are none."""
    cases = [f"{where}: no image for the label file {name!r}" for name in label_files]
    return [RawFinding("image_unknown", cases[0], len(cases))] if cases else []


def box_around(points: Sequence[tuple[float, float]]) -> Box:
    """Return the box around points; four NaN if there are no points or a coordinate is not finite."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if not points or not all(map(math.isfinite, [*xs, *ys])):
        return (math.nan,) * 4
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


class SplitLabels(Generic[T]):
    """The content of the label files of each split, which is read once, when it is first needed.

    Attributes:
        of: Returns the content of a split; raises an ``InputError`` if a file of the split is wrong.
    """

    def __init__(self, layout: Layout, read: Callable[[SplitFiles], T]) -> None:
        """Take the layout, and the function that reads a split."""
        self._layout = layout
        self.of: Callable[[SplitFiles], T] = cache(read)

    def readable(self) -> list[T]:
        """Return the content of all splits without a fault; the fault of a split is raised when ``of`` reads it."""
        contents = []
        for files in self._layout.splits.values():
            with suppress(InputError):
                contents.append(self.of(files))
        return contents
