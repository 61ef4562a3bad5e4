"""Predictions as files that other programs read: a COCO results file, and a YOLO label file for each image.

Both are checked before the first image is read. The label files appear one by one, the results file when all images are
done, so that a file never looks complete when it is not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from kubeyolo.errors import InputError, WorkError
from kubeyolo.prediction.sources import Source
from kubeyolo.prediction.stream import Prediction
from kubeyolo.prediction.targets import free_paths
from kubeyolo.storage.file_errors import writable_folder
from kubeyolo.storage.integrity import appearing

MARK = ".kubeyolo-labels"
"""Empty file in a folder of labels that this command has written: it may replace labels there."""

CLASSES = "classes.txt"


class ResultFile(Protocol):
    """Receives the predictions of all images, in their order."""

    def add(self, prediction: Prediction) -> None:
        """Write a prediction."""


class CocoResults:
    """A COCO results file: a list of ``image_id``, ``category_id``, ``bbox`` (left, top, width, height), ``score``.

    The id of an image is the number that its file name consists of, as in COCO, or else its file name.

    Args:
        path: The file, for messages.
        file: The opened file.
        category_ids: The category id of each class; empty for 1, 2, 3, …
    """

    def __init__(self, path: Path, file: IO[str], category_ids: Sequence[int]) -> None:
        self._path, self._file, self._ids, self._separator = path, file, category_ids, "[\n"

    def add(self, prediction: Prediction) -> None:
        """Write the boxes of an image."""
        for x1, y1, x2, y2, score, label in prediction.rows.astype(float).tolist():
            row = {
                "image_id": image_id(prediction.source),
                "category_id": self._ids[int(label)] if self._ids else int(label) + 1,
                "bbox": [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(score, 5),
            }
            with _written(self._path):
                self._file.write(f"{self._separator}{json.dumps(row)}")
            self._separator = ",\n"

    def end(self) -> None:
        """Write the end of the list."""
        self._file.write("[]\n" if self._separator == "[\n" else "\n]\n")


class YoloLabels:
    """A text file for each image with a line ``class cx cy w h`` for each box, as fractions of the image.

    Args:
        folder: The folder of the files.
        paths: File of each image, by its name.
        classes: Names of the classes.
    """

    def __init__(self, folder: Path, paths: dict[str, Path], classes: Sequence[str]) -> None:
        self._folder, self.paths, self._classes = folder, paths, classes

    def begin(self) -> None:
        """Mark the folder as written by this command, and write ``classes.txt`` with the names of the classes."""
        (self._folder / MARK).touch()
        with appearing(self._folder / CLASSES, durable=False) as part:
            part.write_text("".join(f"{name}\n" for name in self._classes), encoding="utf-8")

    def add(self, prediction: Prediction) -> None:
        """Write the file of an image; it is empty if the image has no boxes."""
        lines = []
        for x1, y1, x2, y2, _, label in prediction.rows.astype(float).tolist():
            centre = (x1 + x2) / 2 / prediction.width, (y1 + y2) / 2 / prediction.height
            sides = (x2 - x1) / prediction.width, (y2 - y1) / prediction.height
            lines.append(f"{int(label)} " + " ".join(f"{value:.6f}" for value in (*centre, *sides)) + "\n")
        path = self.paths[prediction.source.name]
        with _written(path), appearing(path, durable=False) as part:
            part.write_text("".join(lines))


@contextmanager
def coco_results(
    path: Path, sources: Sequence[Source], category_ids: Sequence[int], taken: Collection[Path] = ()
) -> Iterator[CocoResults]:
    """Open a results file; it replaces the file at ``path`` at the end of the block, unless the block raises.

    Args:
        path: Path of the file.
        sources: The images.
        category_ids: The category id of each class; empty for 1, 2, 3, …, as in a bundle of imported weights.
        taken: Files that other options write.

    Raises:
        InputError: Two images have the same id, the file is an image to read or a file of another option, the path is
            that of a folder, a device or a link, or the file cannot be written.
    """
    owners: dict[int | str, str] = {}
    for source in sources:
        if source.fault:  # nothing is written for it
            continue
        other = owners.setdefault(image_id(source), source.name)
        if other != source.name:
            raise InputError(
                f"--coco {path}: {other} and {source.name} have the image id {image_id(source)!r}; predict the "
                "folders one by one, or use --json"
            )
    _refuse_image("--coco", path, sources)
    _refuse_taken("--coco", path, taken)
    writable_folder("--coco", path.parent)
    with appearing(path, durable=False) as part, _opened("--coco", part, path) as file:
        results = CocoResults(path, file, category_ids)
        yield results
        with _written(path):
            results.end()
            file.flush()


def yolo_labels(folder: Path, sources: Sequence[Source], classes: Sequence[str]) -> YoloLabels:
    """Return the writer of label files below a folder, with the paths of the images below their common folder.

    Only the folder is made.

    Args:
        folder: A folder that does not exist, is empty, or was written by an earlier call.
        sources: The images.
        classes: Names of the classes.

    Raises:
        InputError: The folder has other files, or cannot be written.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise InputError(
            f"--txt {folder}: the folder has files that this command has not written; give an empty folder, so that no "
            "annotation is replaced"
        )
    paths = free_paths(sources, folder, label_name, (CLASSES,))
    writable_folder("--txt", folder)
    return YoloLabels(folder, {source.name: path for source, path in zip(sources, paths, strict=True)}, classes)


def image_id(source: Source) -> int | str:
    """Return the id of an image in a results file: the number in its file name, or else its file name."""
    stem = source.inner.stem
    return int(stem) if stem.isascii() and stem.isdecimal() else source.inner.name


def label_name(name: str) -> str:
    """Return the name of the label file of an image."""
    return str(PurePosixPath(name).with_suffix(".txt"))


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Name the file in an error of the block.

    Raises:
        WorkError: The block could not write.
    """
    try:
        yield
    except OSError as error:
        raise WorkError(f"{path}: cannot be written: {error.strerror}") from error


def _refuse_image(option: str, path: Path, sources: Sequence[Source]) -> None:
    target = os.path.realpath(path)
    for source in sources:
        if not source.stored and os.path.realpath(source.name) == target:
            raise InputError(f"{option} {path}: is an image to read; give another file")


def _refuse_taken(option: str, path: Path, taken: Collection[Path]) -> None:
    """Refuse a path of a folder, a device or a link, which a new file would replace, and files of other options."""
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder; give a file, such as {option} {path / 'results.json'}")
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise InputError(f"{option} {path}: is a link or a device, not a file; give another file")
    target = os.path.realpath(path)
    if any(os.path.realpath(other) == target for other in taken):
        raise InputError(f"{option} {path}: another option writes this file; give another file")


@contextmanager
def _opened(option: str, part: Path, path: Path) -> Iterator[IO[str]]:
    """Open the file ``part`` that becomes the file ``path`` of an option.

    Raises:
        InputError: It cannot be opened.
    """
    try:
        file = part.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{option} {path}: cannot be written: {error.strerror}; give another file") from error
    with file:
        yield file
