"""The tables of a data set as a reader found them: columns in file order, before any check.

Every reader (COCO, YOLO, Pascal VOC, ...) fills these; :mod:`kubeyolo.data.annotations` checks them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class RawImages:
    """The images of a split.

    Attributes:
        ids: Anything that tells images apart: whole numbers or texts.
        names: Names of files, relative to the image folder of the split.
        widths: Width in pixels, or what stands in its place (None, -1, "96").
        heights: Height, alike.
        groups: What images belong together when they are divided (a video, a patient); None where no key names it.
    """

    ids: Sequence[Any]
    names: Sequence[Any]
    widths: Sequence[Any]
    heights: Sequence[Any]
    groups: Sequence[Any] | None = None


@dataclass(eq=False)
class RawCategories:
    """The classes: id, name, and the name of the category above, or None."""

    ids: Sequence[Any]
    names: Sequence[Any]
    parents: Sequence[Any]


@dataclass(eq=False)
class RawBoxes:
    """The annotations.

    Attributes:
        ids: Ids, or None.
        image_ids: Each an id of an image.
        category_ids: Each an id of a category.
        boxes: [left, top, width, height] in pixels, or what stands in its place (None, []).
        areas: Area in square pixels, or None.
        crowds: 0 or 1 or what stands in its place; None for 0.
        masks: COCO's ``segmentation`` (polygons or RLE) by position, for those annotations that have no box.
    """

    ids: Sequence[Any]
    image_ids: Sequence[Any]
    category_ids: Sequence[Any]
    boxes: Sequence[Any]
    areas: Sequence[Any]
    crowds: Sequence[Any]
    masks: dict[int, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Noted:
    """A finding of a reader: its code, the first example, the number, and what else is to be said."""

    code: str
    first: str
    count: int
    note: str = ""


@dataclass(eq=False)
class RawSplit:
    """The annotations of one split, or of a whole data set that is not divided yet.

    Attributes:
        where: The file or folder that they were read from, for messages.
        has_annotations: Whether there is a table of annotations at all.
        noted: What the reader has found.
    """

    where: str
    categories: RawCategories
    images: RawImages
    boxes: RawBoxes
    has_annotations: bool = True
    noted: tuple[Noted, ...] = ()
