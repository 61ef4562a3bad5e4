"""The tables of a data set as a reader returns them: columns in file order, unchecked.

Every reader (COCO, YOLO, Pascal VOC, ...) fills these tables; :mod:`kubeyolo.data.annotations` checks them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class RawImages:
    """The images of a split.

    Attributes:
        ids: Whole numbers or texts.
        names: File names, relative to the image folder of the split.
        widths: Width in pixels, or whatever the file has instead (None, -1, "96").
        heights: Height in pixels, or whatever the file has instead.
        groups: The group of each image (a video, a patient), which is kept together when the data set is divided; None
            if no key is configured.
        facts: The values of the configured keys of each image (``data.slice_keys``), by key; None if none is
            configured.
    """

    ids: Sequence[Any]
    names: Sequence[Any]
    widths: Sequence[Any]
    heights: Sequence[Any]
    groups: Sequence[Any] | None = None
    facts: Sequence[dict[str, Any]] | None = None


@dataclass(eq=False)
class RawCategories:
    """The classes: id, name, and the name of the supercategory, or None."""

    ids: Sequence[Any]
    names: Sequence[Any]
    parents: Sequence[Any]


@dataclass(eq=False)
class RawBoxes:
    """The annotations.

    Attributes:
        ids: Ids, or None.
        image_ids: Ids of images.
        category_ids: Ids of categories.
        boxes: [left, top, width, height] in pixels, or whatever the file has instead (None, []).
        areas: Area in square pixels, or None.
        crowds: 0, 1, or whatever the file has instead; None means 0.
        masks: COCO's ``segmentation`` (polygons or RLE) by position, for annotations without a box.
    """

    ids: Sequence[Any]
    image_ids: Sequence[Any]
    category_ids: Sequence[Any]
    boxes: Sequence[Any]
    areas: Sequence[Any]
    crowds: Sequence[Any]
    masks: dict[int, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RawFinding:
    """A finding from a reader: code, first case, number of cases, and a note."""

    code: str
    first: str
    count: int
    note: str = ""


@dataclass(eq=False)
class RawSplit:
    """The annotations of a split, or of a whole data set that is not divided yet.

    Attributes:
        where: The file or folder of the annotations, for messages.
        has_annotations: Whether the file has a table of annotations.
        findings: The findings from the reader.
    """

    where: str
    categories: RawCategories
    images: RawImages
    boxes: RawBoxes
    has_annotations: bool = True
    findings: tuple[RawFinding, ...] = ()
