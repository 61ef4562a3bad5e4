"""Recognizes the layout of a data set (format and splits) from its file names, and explains why inputs are unusable.

File names are enough, so a data set in an object store is recognized before it is downloaded; only the small files that
describe a YOLO data set are read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from kubeyolo.data.layouts.coco import find_coco
from kubeyolo.data.layouts.names import KINDS, is_image_name, split_of, words_of
from kubeyolo.data.layouts.paired import find_labelme
from kubeyolo.data.layouts.tree import Tree, list_files, read_file
from kubeyolo.data.layouts.types import Layout, LayoutProblem, ReadFile
from kubeyolo.data.layouts.xml import find_cvat, find_voc
from kubeyolo.data.layouts.yolo import find_yolo
from kubeyolo.errors import InputError, suggest
from kubeyolo.file_kinds import kind_of
from kubeyolo.regular_files import open_regular

FORMATS = ("coco", "yolo", "voc", "cvat", "labelme")
_EXPECTED = (
    "expected COCO (annotations/<split>.json next to <split>/ with images, for train and val), or the export of an "
    "annotation tool in COCO, YOLO, Pascal VOC, CVAT or LabelMe format"
)
_DEEPEST = 3
_MOST_SHOWN = 5
# A folder with more files is not searched just for a better message.
_MOST_FILES = 100_000


@dataclass(frozen=True)
class _Candidate:
    """The result of recognizing the files as one format.

    Attributes:
        layout: The layout if the data set is complete.
        problem: If the data set is not complete, what is missing or ambiguous, and what to do.
    """

    format: str
    layout: Layout | None = None
    problem: str = ""


def find_layout(paths: Collection[str], where: str, read: ReadFile, format: str = "") -> Layout:
    """Return the layout of a data set.

    Args:
        paths: The relative paths of all its files, with '/'.
        where: The data set, for messages.
        read: Returns the content of a small file, such as data.yaml, by its relative path.
        format: The format of the data set; if '', it is recognized.

    Raises:
        InputError: There is no data set, or it is incomplete or ambiguous; the message explains what to give instead.
    """
    if format and format not in FORMATS:
        raise InputError(f"data.format = {format!r} is not a format{suggest(format, FORMATS)}")
    if not paths:
        raise InputError(f"{where}: there are no files; {_EXPECTED}")
    tree = Tree(paths)
    candidates = [found for found in _candidates(tree, read) if format in ("", found.format)]
    complete = [found.layout for found in candidates if found.layout is not None]
    if len(complete) == 1:
        return complete[0]
    if complete:
        formats = " and ".join(f"{layout.format} ({layout.words})" for layout in complete)
        choices = " or ".join(f"data.format={layout.format}" for layout in complete)
        raise InputError(f"{where}: can be read as {formats}; set {choices}")
    inside = _inside(tree, paths, where, format, read)
    if inside:
        raise InputError(inside)
    if candidates:
        raise InputError(f"{where}: {candidates[0].problem}")
    raise InputError(f"{where}: {_describe_folder(tree, format)}")


def local_layout(root: Path, format: str = "") -> Layout:
    """Return the layout of a data set in a folder of this machine.

    Raises:
        InputError: As :func:`find_layout`; or ``root`` is missing, an archive, or a file of a data set.
    """
    if not root.is_dir():
        raise InputError(_describe_path(root, format))
    try:
        return find_layout(list_files(root), str(root), _reader(root), format)
    except InputError:
        # It may be the folder of the images, of the annotations, or of one split.
        above = _data_set_above(root, format) if words_of(root.name) == [] or split_of(root.name) else ""
        if above:
            raise InputError(f"{root}: is part of a data set; give the folder of the data set, {above}") from None
        raise


def _reader(root: Path) -> ReadFile:
    return lambda path: read_file(root / path)


def _candidates(tree: Tree, read: ReadFile) -> Iterator[_Candidate]:
    finders: tuple[Callable[[Tree], Layout | None], ...] = (
        find_coco,
        partial(find_yolo, read=read),
        find_voc,
        find_cvat,
        find_labelme,
    )
    for name, find in zip(FORMATS, finders, strict=True):
        try:
            layout = find(tree)
            if layout is not None:
                yield _Candidate(name, layout)
        except LayoutProblem as problem:
            yield _Candidate(name, problem=str(problem))


def _inside(tree: Tree, paths: Collection[str], where: str, format: str, read: ReadFile) -> str:
    """Return a message that names data sets in subfolders, or '' if there are none."""
    found = list(islice(_data_sets_inside(tree, paths, format, read, _DEEPEST), _MOST_SHOWN + 1))
    if not found:
        return ""
    base = where.rstrip("/")
    if len(found) == 1:
        name, layout = found[0]
        return f"{where}: is not a data set, but its folder {name}/ is ({layout.words}); give {base}/{name}"
    more = " and more" if len(found) > _MOST_SHOWN else ""
    names = ", ".join(f"{name}/" for name, _ in found[:_MOST_SHOWN])
    return f"{where}: contains several data sets: {names}{more}; give one data set, such as {base}/{found[0][0]}"


def _data_sets_inside(
    tree: Tree, paths: Collection[str], format: str, read: ReadFile, depth: int
) -> Iterator[tuple[str, Layout]]:
    for child in tree.children(""):
        if split_of(child) or not any(tree.folders[child].below[kind] for kind in ("json", "txt", "xml", "yaml")):
            continue
        prefix = f"{child}/"
        inside = [path[len(prefix) :] for path in paths if path.startswith(prefix)]
        lower, reader = Tree(inside), _read_below(read, prefix)
        whole = [each.layout for each in _candidates(lower, reader) if each.layout and format in ("", each.format)]
        if whole:
            yield child, whole[0]
        elif depth > 1:
            for name, layout in _data_sets_inside(lower, inside, format, reader, depth - 1):
                yield prefix + name, layout


def _read_below(read: ReadFile, prefix: str) -> ReadFile:
    return lambda path: read(prefix + path)


def _describe_folder(tree: Tree, format: str) -> str:
    """Return words that explain a folder without annotations in a known format, and what to do."""
    root = tree.folders[""]
    images = tree.images("")
    archives = tree.files["archive"]
    if archives and not images:
        return f"contains the archive {archives[0]}; unpack it and give the folder"
    unread = [path for kind in ("tfrecord", "parquet", "csv", "jsonl") for path in tree.files[kind]]
    if unread:
        return f"{unread[0]} is in a format that is not supported; export the data set as COCO"
    if any(is_image_name(path[: -len(".json")]) for path in tree.files["json"]):
        return "Supervisely's JSON (a file for each image) is not supported; export the data set as COCO"
    if any(".createml." in path for path in tree.files["json"]):
        return "CreateML's JSON is not supported; export the data set as COCO"
    if any(path.rpartition("/")[2] in ("samples.json", "frames.json") for path in tree.files["json"]):
        return "FiftyOne's own format is not supported; export it with dataset_type=fiftyone.types.COCODetectionDataset"
    if format:
        return f"has no data set in {format} format; omit data.format, or see docs/data.md for the layout"
    if not images:
        shown = ", ".join(sorted(path for paths in tree.files.values() for path in paths)[:_MOST_SHOWN])
        return f"has no images{f' (found: {shown})' if shown else ''}; {_EXPECTED}"
    classes = _class_folders(tree)
    if classes:
        shown = ", ".join(f"{name}/" for name in classes[:_MOST_SHOWN])
        return (
            f"{images} images in folders of classes ({shown}) and no boxes: use them to pretrain a backbone "
            "(pretrain.data); to train a detector, annotate the images with boxes and export COCO"
        )
    others = sorted(path for kind in ("json", "xml", "txt", "yaml") for path in tree.files[kind])
    if others:
        shown = ", ".join(others[:_MOST_SHOWN])
        return f"{images} images, but no annotations with a known file name (found: {shown}); {_EXPECTED}"
    where = "" if root.stems.get("image") else " in folders"
    return f"{images} images{where} and no annotations; annotate them, export COCO, and give the folder of the export"


def _class_folders(tree: Tree) -> list[str]:
    """Return the names of the classes if there is a folder of images for each class, possibly within splits."""
    if any(tree.files[kind] for kind in ("json", "xml", "txt")):
        return []
    top = [child for child in tree.children("") if tree.images(child)]
    splits = [child for child in top if split_of(child)]
    inside = [name for split in splits for name in tree.children(split)] if splits else top
    if tree.has_images("") or any(tree.has_images(split) for split in splits):
        return []
    classes = sorted({name.rpartition("/")[2] for name in inside if tree.has_images(name)})
    return classes if len(classes) > 1 and classes != ["images", "labels"] else []


def _describe_path(path: Path, format: str) -> str:
    """Return words that explain a path that is not a folder, and what to give instead."""
    if not path.exists():
        return f"{path}: no such folder; {_EXPECTED}"
    kind = KINDS.get(path.suffix[1:].lower(), "")
    if not path.is_file():
        return f"{path}: is neither a folder nor a file; give the folder of the data set"
    try:
        with open_regular(path) as file:
            start = file.read(1024)
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
    content = kind_of(start) or ""
    if kind == "archive" or content.endswith(" archive"):
        return f"{path}: is {content or 'an archive'}; unpack it and give the folder"
    if kind == "image":
        return f"{path}: is an image; give the folder of images and annotations"
    above = _data_set_above(path, format)
    if above:
        return f"{path}: is a file of a data set; give the folder of the data set, {above}"
    return f"{path}: is a file; give the folder with the annotations and the images"


def _data_set_above(path: Path, format: str) -> str:
    """Return the data set that a file or folder belongs to, in words; '' if there is none."""
    for folder in list(path.absolute().parents)[:2]:
        try:
            files = list_files(folder, _MOST_FILES)
            if len(files) == _MOST_FILES:
                break
            layout = find_layout(files, str(folder), _reader(folder), format)
        except InputError:
            continue
        return f"{folder} ({layout.words})"
    return ""
