"""YOLO's label files: a line for each box, its class and centre, width and height as fractions of the image.

Lines of polygons (segmentation, oriented boxes) give the box around the polygon.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from kubeyolo.config.text_file import read_text_file
from kubeyolo.data.layouts.tree import data_files, read_file
from kubeyolo.data.layouts.types import Layout, LayoutProblem, SplitFiles
from kubeyolo.data.layouts.yolo import LABELS, class_names, describe_yaml
from kubeyolo.data.raw import Noted, RawSplit
from kubeyolo.data.readers.members import images_of
from kubeyolo.data.readers.sizes import shown_sizes
from kubeyolo.data.readers.tables import Box, LabelledImage, box_around, raw_split, with_orphans
from kubeyolo.errors import InputError

_FARTHEST = 2.0
"""Fractions beyond it, either side, are not fractions of an image: boxes that leave it do so by less."""


def read(root: Path, files: SplitFiles, layout: Layout) -> RawSplit:
    """Return a split; an image without a label file has no boxes.

    Args:
        root: The folder of the data set.
        files: Where the split lies.
        layout: The layout, whose ``extra`` files name the classes.

    Raises:
        InputError: There are no names of classes, no label file, or a label file is wrong.
    """
    lists = {member for split in layout.splits.values() for member in split.members}
    described = {path: read_file(root / path) for path in layout.extra if path not in lists}
    classes = class_names(described, str(root))
    names = images_of(root, files)
    finder = _LabelFinder(root, files)
    labels = [finder.find(name) for name in names]
    if not any(labels):
        raise InputError(
            f"{root / files.images}: none of its {len(names)} images has a label file in {root / files.annotations}; "
            "label files have the names of their images, with .txt"
        )
    has_keypoints = any(_has_keypoints(path, data) for path, data in described.items())
    images = []
    for name, size, label in zip(names, shown_sizes(root / files.images, names), labels, strict=True):
        image = LabelledImage(name, *(size or (None, None)))
        if label is not None and size is not None:
            found = _boxes(root / label, len(classes), has_keypoints)
            image.boxes = [(number, _scaled(box, *size), 0) for number, box in found]
        images.append(image)
    split = finder.noted(raw_split(str(root / files.annotations), images, classes, by_name=False))
    shares = [each for each in layout.splits.values() if each.annotations == files.annotations]
    # Label files of a folder that several splits share may belong to images of another one.
    return with_orphans(split, finder.without_image() if len(shares) == 1 and not files.members else [])


def _has_keypoints(path: str, data: bytes) -> bool:
    if not path.endswith((".yaml", ".yml")):
        return False
    try:
        described = describe_yaml(path, data)
    except LayoutProblem:
        return False
    return described is not None and described.has_keypoints


class _LabelFinder:
    """Finds the label file of each image of a split, also where its name differs in case or has the image's suffix."""

    def __init__(self, root: Path, files: SplitFiles) -> None:
        folders = dict.fromkeys((files.annotations, files.images))
        inside = any(
            other and folder != other and f"{folder}/".startswith(f"{other}/")
            for folder in folders
            for other in folders
        )
        tops = [""] if "" in folders or files.members or inside else list(folders)
        self._known = {
            f"{top}/{name}" if top else name
            for top in tops
            for name in data_files(root / top)
            if name.lower().endswith(".txt")
        }
        self._folded: dict[str, list[str]] = {}
        for path in sorted(self._known):
            self._folded.setdefault(path.casefold(), []).append(path)
        self._root = root
        self._where = str(root / files.annotations)
        self._labels = f"{files.annotations}/" if files.annotations else ""
        self._images = f"{files.images}/" if files.images else ""
        self._used: set[str] = set()
        self._near: list[tuple[str, str]] = []

    def find(self, image: str) -> str | None:
        """Return the label file of an image, relative to the root; None where it has none."""
        stem = image.rpartition(".")[0]
        found = next((path for path in _label_paths(stem, self._labels, self._images) if path in self._known), None)
        if found is None:
            found = self._nearest(stem) or self._nearest(image)
            if found is not None:
                self._near.append((image, found))
        if found is not None:
            self._used.add(found)
        return found

    def _nearest(self, stem: str) -> str | None:
        for path in _label_paths(stem, self._labels, self._images):
            alike = self._folded.get(path.casefold(), [])
            if len(alike) == 1:
                return alike[0]
        return None

    def noted(self, split: RawSplit) -> RawSplit:
        """Return a split with the finding that names of label files differ from those of their images."""
        if not self._near:
            return split
        image, label = self._near[0]
        noted = Noted("name_near", f"{self._where}: the label file of {image!r} is {label!r}", len(self._near))
        return replace(split, noted=(*split.noted, noted))

    def without_image(self) -> list[str]:
        """Return the label files in the folder of labels that belong to no image that was asked for."""
        left = (path for path in self._known - self._used if path.startswith(self._labels))
        named = (path for path in left if path.rpartition("/")[2][: -len(".txt")].lower() not in LABELS.others)
        return sorted(path for path in named if _has_boxes(self._root / path))


def _has_boxes(path: Path) -> bool:
    """Tell whether a text file begins with a line of numbers: others are notes, or without boxes."""
    try:
        words = next(iter(read_text_file(path).splitlines()), "").split()
        return len([float(word) for word in words]) >= 5
    except (InputError, ValueError):
        return False


def _label_paths(stem: str, labels: str, images: str) -> Iterator[str]:
    """Yield where the label file of an image may lie: its own folder, ``labels`` for ``images``, next to the image."""
    yield f"{labels}{stem}.txt"
    parts = f"{images}{stem}".split("/")
    for i in reversed(range(len(parts) - 1)):
        if parts[i].lower() == "images":
            yield "/".join([*parts[:i], "labels", *parts[i + 1 :]]) + ".txt"
    yield f"{images}{stem}.txt"


def _boxes(path: Path, classes: int, has_keypoints: bool) -> list[tuple[int, Box]]:
    """Return class and [left, top, width, height] as fractions for each line of a label file."""
    found = []
    for number, line in enumerate(read_text_file(path).splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"{path}: line {number}"
        try:
            label, *values = [float(word) for word in words]
        except ValueError:
            raise InputError(
                f"{where} is {_shown(line)!r}; expected numbers: class, centre x, centre y, width, height"
            ) from None
        if label != int(label if math.isfinite(label) else -1) or not 0 <= label < classes:
            raise InputError(
                f"{where} has the class {words[0]}, the data set names {classes}, counted from 0; "
                "correct the label file, or name the class"
            )
        found.append((int(label), _box_of(where, line, values, has_keypoints)))
    return found


def _box_of(where: str, line: str, values: list[float], has_keypoints: bool) -> Box:
    if len(values) == 4 or (has_keypoints and len(values) > 4):
        x, y, width, height = values[:4]
        box = (x - width / 2, y - height / 2, width, height)
    elif len(values) >= 6 and len(values) % 2 == 0:
        box = box_around(list(zip(values[::2], values[1::2], strict=True)))
    else:
        note = " (a detection with its confidence?)" if len(values) == 5 else ""
        raise InputError(
            f"{where} has {len(values)} numbers after the class{note}; expected four (centre x, centre y, width, "
            "height), or the points of a polygon"
        )
    if any(abs(value) > _FARTHEST for value in values[:4] if math.isfinite(value)):
        raise InputError(
            f"{where} is {_shown(line)!r}; expected fractions of the image, from 0 to 1: divide pixels by its size"
        )
    return box


def _shown(line: str) -> str:
    return line if len(line) <= 80 else f"{line[:76]} ..."


def _scaled(box: Box, width: int, height: int) -> Box:
    return box[0] * width, box[1] * height, box[2] * width, box[3] * height
