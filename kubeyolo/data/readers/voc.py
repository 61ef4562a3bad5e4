"""Reads Pascal VOC: an XML file for each image.

A box consists of the first and the last column and row of an object. In Pascal VOC they are numbered from 1, and the
last column and row belong to the box; annotation tools write the same elements with coordinates that start at 0. The
coordinates of all files together show which of the two conventions a data set uses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

from kubeyolo.data.layouts.names import is_image_name
from kubeyolo.data.layouts.tree import data_files
from kubeyolo.data.layouts.types import Layout, SplitFiles
from kubeyolo.data.raw import RawSplit
from kubeyolo.data.readers.members import list_entries
from kubeyolo.data.readers.tables import Box, LabelledImage, SplitLabels, box_around, raw_split
from kubeyolo.data.readers.xml import number_of, read_small, text_at, whole_or_text
from kubeyolo.errors import InputError

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
# Tools that write their name into <source>, and coordinates that start at 0.
_FROM_ZERO = ("roboflow", "cvat", "label studio", "labelstudio", "label-studio")


@dataclass
class _Object:
    """An object of an image: its name, its corners as written, and whether it is marked as difficult."""

    name: str
    corners: Box
    is_difficult: bool


@dataclass
class _File:
    """The content of the XML file of an image."""

    image: str
    width: int | str | None
    height: int | str | None
    source: str
    objects: list[_Object]


class VocReader:
    """Reads the splits of a Pascal VOC data set; classes and the convention of coordinates come from all splits."""

    def __init__(self, root: Path, layout: Layout) -> None:
        """Take the folder of the data set and its layout."""
        self._root = root
        self._splits = SplitLabels(layout, partial(_read_files, root))

    def read(self, files: SplitFiles) -> RawSplit:
        """Return a split; difficult objects become crowds: they are not used in training, nor counted as missed.

        Raises:
            InputError: A file is not XML, an object has no name or box, or a listed image has no file.
        """
        own = self._splits.of(files)
        everything = [file for each in self._splits.readable() for file in each]
        classes = sorted({item.name for file in everything for item in file.objects})
        first = 0 if _counts_from_zero(everything) else 1
        images = [
            LabelledImage(
                file.image,
                file.width,
                file.height,
                [(item.name, _box(item.corners, first), int(item.is_difficult)) for item in file.objects],
            )
            for file in own
        ]
        return raw_split(str(self._root / files.annotations), images, classes, by_name=True)


def _read_files(root: Path, files: SplitFiles) -> list[_File]:
    folder = root / files.annotations
    labels = {name[: -len(".xml")]: name for name in data_files(folder) if name.lower().endswith(".xml")}
    stems = _listed(root, files, labels) if files.members else sorted(labels)
    images: dict[str, list[str]] = {}
    for name in data_files(root / files.images):
        if is_image_name(name):
            images.setdefault(name.rpartition(".")[0], []).append(name)
    return [_read_file(folder / labels[stem], stem, images) for stem in stems]


def _listed(root: Path, files: SplitFiles, labels: dict[str, str]) -> list[str]:
    stems = []
    for member in files.members:
        for number, entry in enumerate(list_entries(root / member), 1):
            # Lists for single classes have a second column with -1, 0 or 1.
            stem = entry if entry in labels else entry.split()[0]
            if stem not in labels and is_image_name(stem):
                stem = stem.rpartition(".")[0]
            stem = stem if stem in labels else stem.rpartition("/")[2]
            if stem not in labels:
                raise InputError(
                    f"{root / member}: line {number} names {entry}, but there is no {files.annotations}/{stem}.xml; "
                    "add the file, or remove the line"
                )
            stems.append(stem)
    return sorted(set(stems))


def _read_file(path: Path, stem: str, images: dict[str, list[str]]) -> _File:
    root = read_small(path)
    if root.tag != "annotation":
        raise InputError(f"{path}: not Pascal VOC: its root is <{root.tag}>, not <annotation>; export Pascal VOC again")
    written = text_at(root, "filename").replace("\\", "/").rpartition("/")[2]
    named = images.get(stem) or images.get(written.rpartition(".")[0]) or [written or f"{stem}.jpg"]
    image = next((name for name in named if name.rpartition("/")[2] == written), named[0])
    source = " ".join(text_at(root, f"source/{tag}") for tag in ("database", "annotation")).lower()
    width, height = (whole_or_text(text_at(root, f"size/{side}")) for side in ("width", "height"))
    elements = enumerate(root.findall("object"), 1)
    objects = [_read_object(f"{path}: object {number}", element) for number, element in elements]
    return _File(image, width, height, source, objects)


def _read_object(where: str, element: Element) -> _Object:
    name = text_at(element, "name")
    if not name:
        raise InputError(f"{where} has no name; write the name of its class")
    where = f"{where} ({name})"
    box = element.find("bndbox")
    if box is not None:
        left, top, right, bottom = (number_of(where, corner, text_at(box, corner)) for corner in _CORNERS)
    else:
        x, y, width, height = box_around(_points(where, element))
        left, top, right, bottom = x, y, x + width, y + height
        if math.isnan(left):
            raise InputError(f"{where} has no bndbox; draw a box, or remove the object")
    return _Object(name, (left, top, right, bottom), text_at(element, "difficult").lower() in ("1", "true"))


def _points(where: str, element: Element) -> list[tuple[float, float]]:
    """Return the points of a polygon: ``<pt><x>, <y>`` as LabelMe's web tool writes them, or ``<x1>, <y1>, ...``."""
    polygon = element.find("polygon")
    if polygon is None:
        return []
    pairs = [(text_at(point, "x"), text_at(point, "y")) for point in polygon.findall("pt")]
    if not pairs:
        count = sum(1 for child in polygon if child.tag.startswith("x"))
        pairs = [(text_at(polygon, f"x{i}"), text_at(polygon, f"y{i}")) for i in range(1, count + 1)]
    return [(number_of(where, "x", x), number_of(where, "y", y)) for x, y in pairs]


def _counts_from_zero(files: list[_File]) -> bool:
    """Tell if coordinates start at 0: a value is below 1 or not whole, or a file names a tool that does so."""
    if any(tool in file.source for tool in _FROM_ZERO for file in files):
        return True
    corners = (value for file in files for item in file.objects for value in item.corners)
    starts = (value for file in files for item in file.objects for value in item.corners[:2])
    return any(value < 1 for value in starts) or any(value != round(value) for value in corners if math.isfinite(value))


def _box(corners: Box, first: int) -> Box:
    left, top, right, bottom = corners
    return left - first, top - first, right - left + first, bottom - top + first
