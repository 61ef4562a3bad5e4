"""Reads CVAT for images 1.1: one XML file with the boxes of all images."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree.ElementTree import Element

from kubeyolo.data.layouts.names import is_image_name, split_of
from kubeyolo.data.layouts.tree import data_files
from kubeyolo.data.layouts.types import Layout, SplitFiles
from kubeyolo.data.raw import RawSplit
from kubeyolo.data.readers.tables import Box, LabelledImage, box_around, raw_split
from kubeyolo.data.readers.xml import number_of, read_large, text_at, whole_or_text
from kubeyolo.errors import InputError

_TAGS = frozenset({"label", "image", "track"})
_WITHOUT_BOX = frozenset({"points", "polyline", "skeleton", "tag", "attribute"})


def read(root: Path, files: SplitFiles, layout: Layout) -> RawSplit:
    """Return a split: the images in its subset or in its folder.

    Rotated boxes, polygons, ellipses and masks become the box around them. Points, lines and skeletons have no box:
    they are left out and counted in a finding.

    Raises:
        InputError: The file is not from CVAT, or a shape is wrong.
    """
    path = root / files.annotations
    there = {name for name in data_files(root / files.images) if is_image_name(name)}
    split = split_of(files.images) if not layout.is_single else ""
    classes: dict[str, None] = {}
    images = []
    for element in read_large(path, _TAGS):
        if element.tag == "track":
            raise InputError(f"{path}: is CVAT for video; export CVAT for images or COCO")
        if element.tag == "label":
            # Labels with a parent are parts of a skeleton.
            if element.find("name") is not None and not text_at(element, "parent"):
                classes.setdefault(text_at(element, "name"))
            continue
        image = _image(path, element, files.images, there)
        subset = element.get("subset") or ""
        if not split or (split_of(subset) == split if split_of(subset) else image.name in there):
            images.append(image)
    if not images:
        raise InputError(f"{path}: lists no images in {files.images or 'the data set'}; export CVAT for images again")
    classes.update(dict.fromkeys(sorted({label for image in images for label, _, _ in image.boxes} - set(classes))))
    return raw_split(str(path), images, list(classes), by_name=True)


def _image(path: Path, element: Element, folder: str, there: set[str]) -> LabelledImage:
    written = element.get("name") or ""
    name = _name_in(folder, written.replace("\\", "/"), element.get("subset") or "", there)
    image = LabelledImage(name, whole_or_text(element.get("width") or ""), whole_or_text(element.get("height") or ""))
    for number, shape in enumerate(element, 1):
        if shape.tag in _WITHOUT_BOX:
            if shape.tag not in ("tag", "attribute"):
                image.without_box.append(shape.tag)
            continue
        box = _box(f"{path}: shape {number} of image {written!r}", shape)
        if box is not None:
            image.boxes.append((shape.get("label") or "", box, 0))
    return image


def _name_in(folder: str, written: str, subset: str, there: set[str]) -> str:
    """Return the name of an image relative to the image folder, which may be the folder of its subset."""
    last = folder.rpartition("/")[2]
    for name in (written, written.removeprefix(f"{last}/"), f"{subset}/{written}"):
        if name in there:
            return name
    return written


def _box(where: str, shape: Element) -> Box | None:
    """Return the box of a shape, or None for an element that is not a shape."""

    def number(name: str) -> float:
        return number_of(where, name, shape.get(name))

    if shape.tag == "box":
        left, top, right, bottom = (number(name) for name in ("xtl", "ytl", "xbr", "ybr"))
        box = (left, top, right - left, bottom - top)
        return _rotated(box, number("rotation")) if shape.get("rotation") else box
    if shape.tag == "polygon":
        return box_around(_points(where, shape.get("points") or ""))
    if shape.tag == "ellipse":
        x, y, rx, ry = (number(name) for name in ("cx", "cy", "rx", "ry"))
        angle = math.radians(number("rotation")) if shape.get("rotation") else 0.0
        half_x = math.hypot(rx * math.cos(angle), ry * math.sin(angle))
        half_y = math.hypot(rx * math.sin(angle), ry * math.cos(angle))
        return x - half_x, y - half_y, 2 * half_x, 2 * half_y
    if shape.tag == "mask":
        return number("left"), number("top"), number("width"), number("height")
    if shape.tag == "cuboid":
        corners = [(number(f"x{side}"), number(f"y{side}")) for side in _CUBOID]
        return box_around(corners)
    return None


_CUBOID = tuple(f"{side}{number}" for number in (1, 2) for side in ("tl", "bl", "tr", "br"))


def _rotated(box: Box, degrees: float) -> Box:
    """Return the upright box around a box that is rotated about its centre."""
    left, top, width, height = box
    angle = math.radians(degrees)
    half_x = (abs(width * math.cos(angle)) + abs(height * math.sin(angle))) / 2
    half_y = (abs(width * math.sin(angle)) + abs(height * math.cos(angle))) / 2
    return left + width / 2 - half_x, top + height / 2 - half_y, 2 * half_x, 2 * half_y


def _points(where: str, text: str) -> list[tuple[float, float]]:
    points = []
    for pair in filter(None, text.split(";")):
        x, _, y = pair.partition(",")
        points.append((number_of(where, "x", x), number_of(where, "y", y)))
    return points
