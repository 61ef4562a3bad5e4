"""Reads LabelMe: a JSON file next to each image."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from kubeyolo.config.text_file import read_text_file
from kubeyolo.data.layouts.names import is_image_name
from kubeyolo.data.layouts.tree import data_files
from kubeyolo.data.layouts.types import Layout, SplitFiles
from kubeyolo.data.raw import RawSplit
from kubeyolo.data.readers.tables import Box, LabelledImage, SplitLabels, box_around, labels_without_image, raw_split
from kubeyolo.documents import read_json
from kubeyolo.errors import InputError
from kubeyolo.regular_files import LABELS_SIZE

_WITHOUT_BOX = frozenset({"point", "points", "line", "linestrip"})
_LARGEST = 16 * LABELS_SIZE
"""Bytes: LabelMe writes the image into its file too."""


_Read = tuple[list[LabelledImage], list[str]]


class LabelmeReader:
    """Reads the splits of a LabelMe data set; the classes come from all splits."""

    def __init__(self, root: Path, layout: Layout) -> None:
        """Take the folder of the data set and its layout."""
        self._root = root
        self._splits = SplitLabels(layout, lambda files: _read_files(root / files.annotations))

    def read(self, files: SplitFiles) -> RawSplit:
        """Return a split; polygons and circles become the box around them; points and lines are left out and counted.

        Raises:
            InputError: A file is not from LabelMe, or a shape is wrong.
        """
        images, without_image = self._splits.of(files)
        everything = (image for each, _ in self._splits.readable() for image in each)
        names = {label for image in everything for label, _, _ in image.boxes}
        where = str(self._root / files.annotations)
        return raw_split(where, images, sorted(names), True, labels_without_image(where, without_image))


def _read_files(folder: Path) -> _Read:
    """Return the images that have a label file, and the names of label files without an image."""
    names = data_files(folder)
    images = {name.rpartition(".")[0]: name for name in names if is_image_name(name)}
    labelled, without_image = [], []
    for name in names:
        stem = name.rpartition(".")[0]
        if not name.lower().endswith(".json"):
            continue
        if stem in images:
            labelled.append(_read_file(folder / name, images[stem]))
        elif _is_labelme(folder / name):
            without_image.append(name)
    return labelled, without_image


def _document(path: Path) -> Any:
    return read_json(read_text_file(path, "", _LARGEST), str(path), "save the annotations again", _LARGEST)


def _is_labelme(path: Path) -> bool:
    try:
        document = _document(path)
    except InputError:
        return False
    return isinstance(document, dict) and isinstance(document.get("shapes"), list)


def _read_file(path: Path, image: str) -> LabelledImage:
    document = _document(path)
    shapes = document.get("shapes") if isinstance(document, dict) else None
    if not isinstance(shapes, list):
        raise InputError(f"{path}: not LabelMe: it has no list of shapes; export the data set as COCO")
    labelled = LabelledImage(image, document.get("imageWidth"), document.get("imageHeight"))
    for number, shape in enumerate(shapes):
        where = f"{path}: shapes[{number}]"
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
            label = shape.get("label") if isinstance(shape, dict) else None
            what = f"the label {str(label)[:80]}, not a text" if label else "no label"
            raise InputError(f"{where} has {what}; write the name of its class as the label")
        kind = shape.get("shape_type") or "polygon"
        if kind in _WITHOUT_BOX:
            labelled.without_box.append(str(kind))
            continue
        labelled.boxes.append((shape["label"].strip(), _box(where, kind, shape.get("points")), 0))
    return labelled


def _box(where: str, kind: str, points: Any) -> Box:
    try:
        pairs = [(float(x), float(y)) for x, y in points]
    except (TypeError, ValueError):
        raise InputError(f"{where} has the points {str(points)[:80]}; expected pairs of numbers") from None
    if len(pairs) < 2:
        raise InputError(f"{where} has {len(pairs)} points; a {kind} needs two or more: draw it again, or remove it")
    if kind == "circle":
        (x, y), edge = pairs[0], pairs[1]
        radius = math.hypot(edge[0] - x, edge[1] - y)
        return x - radius, y - radius, 2 * radius, 2 * radius
    return box_around(pairs)
