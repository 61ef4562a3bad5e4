"""Reads YOLO's label files: a line for each box, with class, centre, width and height as fractions of the image.

Lines of polygons (segmentation, oriented boxes) become the box around the polygon.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kubeyolo.config.text_file import read_text_file
from kubeyolo.data.columns import shown
from kubeyolo.data.headers import size_of_file
from kubeyolo.data.layouts.tree import data_files, read_file
from kubeyolo.data.layouts.types import Layout, LayoutProblem, SplitFiles
from kubeyolo.data.layouts.yolo import LABELS, class_names, describe_yaml
from kubeyolo.data.raw import RawFinding, RawSplit
from kubeyolo.data.readers.members import images_of
from kubeyolo.data.readers.tables import Box, LabelledImage, box_around, labels_without_image, raw_split
from kubeyolo.errors import InputError
from kubeyolo.regular_files import LABELS_SIZE
from kubeyolo.resources import usable_processors

_FARTHEST = 2.0
"""The largest absolute value of a fraction of an image; it allows for boxes that extend beyond their image."""


def read(root: Path, files: SplitFiles, layout: Layout) -> RawSplit:
    """Return a split; an image without a label file has no boxes.

    Args:
        root: The folder of the data set.
        files: The files of the split.
        layout: The layout, whose ``extra`` files name the classes.

    Raises:
        InputError: There are no names of classes, no label files, or a label file is wrong.
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
    for name, size, label in zip(names, _shown_sizes(root / files.images, names), labels, strict=True):
        image = LabelledImage(name, *(size or (None, None)))
        if label is not None and size is not None:
            width, height = size
            for number, (x, y, w, h) in _boxes(root / label, len(classes), has_keypoints):
                image.boxes.append((number, (x * width, y * height, w * width, h * height), 0))
        images.append(image)
    where = str(root / files.annotations)
    findings = finder.near_names()
    # Label files of a folder that several splits share may belong to images of another split.
    if not files.members and [each.annotations for each in layout.splits.values()].count(files.annotations) == 1:
        findings += labels_without_image(where, finder.without_image())
    return raw_split(where, images, classes, by_name=False, findings=findings)


def _has_keypoints(path: str, data: bytes) -> bool:
    if not path.endswith((".yaml", ".yml")):
        return False
    try:
        described = describe_yaml(path, data)
    except LayoutProblem:
        return False
    return described is not None and described.has_keypoints


class _LabelFinder:
    """Finds the label file of each image of a split, even if its name differs in case or has the image's suffix."""

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
        """Return the label file of an image, relative to the root, or None."""
        stem = image.rpartition(".")[0]
        label = next((path for path in _label_paths(stem, self._labels, self._images) if path in self._known), None)
        if label is None:
            label = self._nearest(stem) or self._nearest(image)
            if label is not None:
                self._near.append((image, label))
        if label is not None:
            self._used.add(label)
        return label

    def _nearest(self, stem: str) -> str | None:
        for path in _label_paths(stem, self._labels, self._images):
            alike = self._folded.get(path.casefold(), [])
            if len(alike) == 1:
                return alike[0]
        return None

    def near_names(self) -> list[RawFinding]:
        """Return the finding about label files whose names differ from the names of their images."""
        cases = [f"{self._where}: the label file of {image!r} is {label!r}" for image, label in self._near]
        return [RawFinding("name_near", cases[0], len(cases))] if cases else []

    def without_image(self) -> list[str]:
        """Return the label files in the label folder that :meth:`find` has not returned."""
        unused = (path for path in self._known - self._used if path.startswith(self._labels))
        named = (path for path in unused if path.rpartition("/")[2][: -len(".txt")].lower() not in LABELS.others)
        return sorted(path for path in named if _has_boxes(self._root / path))


def _has_boxes(path: Path) -> bool:
    """Tell whether a text file starts with a line of numbers; all other text files are notes, or have no boxes."""
    try:
        words = next(iter(read_text_file(path, "", LABELS_SIZE).splitlines()), "").split()
        return len([float(word) for word in words]) >= 5
    except (InputError, ValueError):
        return False


def _label_paths(stem: str, labels: str, images: str) -> Iterator[str]:
    """Yield the possible paths of a label file: in the label folder, in ``labels/``, or next to the image."""
    yield f"{labels}{stem}.txt"
    parts = f"{images}{stem}".split("/")
    for i in reversed(range(len(parts) - 1)):
        if parts[i].lower() == "images":
            yield "/".join([*parts[:i], "labels", *parts[i + 1 :]]) + ".txt"
    yield f"{images}{stem}.txt"


def _boxes(path: Path, classes: int, has_keypoints: bool) -> list[tuple[int, Box]]:
    """Return class and [left, top, width, height] as fractions for each line of a label file."""
    boxes = []
    for number, line in enumerate(read_text_file(path, "", LABELS_SIZE).splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"{path}: line {number}"
        try:
            label, *values = [float(word) for word in words]
        except ValueError:
            raise InputError(
                f"{where} is {shown(line)}; expected numbers: class, centre x, centre y, width, height"
            ) from None
        if label != int(label if math.isfinite(label) else -1) or not 0 <= label < classes:
            raise InputError(
                f"{where} has the class {words[0]}, but the data set has {classes} names of classes, numbered from 0; "
                "correct the label file, or add the name of the class"
            )
        boxes.append((int(label), _box_of(where, line, values, has_keypoints)))
    return boxes


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
            f"{where} is {shown(line)}; expected fractions of the image (0 to 1): divide pixels by the image size"
        )
    return box


def _shown_sizes(folder: Path, names: Sequence[str]) -> list[tuple[int, int] | None]:
    """Return width and height of images with their EXIF orientation applied; None for an image that cannot be read.

    Missing and damaged files are reported when the images are checked.
    """
    with ThreadPoolExecutor(min(8, usable_processors()), thread_name_prefix="kubeyolo-sizes") as pool:
        return list(pool.map(lambda name: size_of_file(folder / name), names))
