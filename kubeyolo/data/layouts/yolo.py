"""Recognizes layouts of YOLO: a text file for each image; splits from ``data.yaml``, darknet's files, or folders."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kubeyolo.config.text import read_yaml_texts
from kubeyolo.config.text_file import decode_text
from kubeyolo.data.layouts.names import split_of
from kubeyolo.data.layouts.paired import (
    PairedFormat,
    Pairs,
    find_pairs,
    images_next_to,
    is_file,
    nearest,
    unlabelled_val,
    with_members,
)
from kubeyolo.data.layouts.tree import Tree, join
from kubeyolo.data.layouts.types import REQUIRED_SPLITS, Layout, LayoutProblem, ReadFile, SplitFiles, make_layout
from kubeyolo.errors import InputError

NAME_FILES = frozenset({"classes", "obj", "coco", "voc", "names", "class_names", "predefined_classes", "_darknet"})
"""Stems of files that list the names of classes, one on each line."""

LABELS = PairedFormat("txt", frozenset({"labels", "label"}), NAME_FILES | {"train", "val", "valid", "test"})
_SPLIT_KEYS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass
class Description:
    """The content of ``data.yaml`` or of darknet's ``obj.data``.

    Attributes:
        path: The file.
        base: The folder to which the paths in the file are relative, as written.
        paths: Folders and lists of images by split, as written.
        names: Class names, or None if the file has no class names.
        names_file: The path of a file with class names, as written, or ''.
        has_keypoints: Whether keypoints follow the boxes in label files.
    """

    path: str
    base: str = ""
    paths: dict[str, list[str]] = field(default_factory=dict)
    names: list[str] | None = None
    names_file: str = ""
    has_keypoints: bool = False


def find_yolo(tree: Tree, read: ReadFile) -> Layout | None:
    """Return the layout of a YOLO data set, or None if no file looks like YOLO.

    Args:
        tree: The files.
        read: Reads ``data.yaml`` and darknet's files.
    """
    pairs = find_pairs(tree, LABELS)
    description = find_description(tree, read)
    if not pairs and not _has_labels(tree):
        return None
    extra, left_out = _extra(tree, description), list[str]()
    if description is not None and description.paths:
        splits = _described(tree, description, pairs, left_out)
    else:
        lists = _list_files(tree)
        splits = with_members(pairs, lists, tree) if lists else pairs.splits
    single = None if splits else pairs.single
    members = [each for files in splits.values() for each in files.members if is_file(tree, each)]
    extra = tuple(dict.fromkeys([*extra, *members]))
    unlabelled = unlabelled_val(tree, splits)
    return make_layout("yolo", _tool(tree, description), splits, single, extra, unlabelled, tuple(left_out))


def _has_labels(tree: Tree) -> bool:
    """Tell whether a text file has the name of an image."""
    return any(path.rpartition("/")[2][: -len(".txt")] in tree.image_stems for path in tree.files["txt"])


def find_description(tree: Tree, read: ReadFile) -> Description | None:
    """Return the content of the file at the root that describes the data set, or None if there is no such file.

    Raises:
        LayoutProblem: There are several such files.
    """
    described = (describe_yaml(path, read(path)) for path in tree.files["yaml"] if "/" not in path)
    descriptions = [each for each in described if each is not None]
    if not descriptions:
        descriptions = [describe_darknet(path, read(path)) for path in tree.files["data"] if "/" not in path]
    usual = [each for each in descriptions if each.path.rpartition(".")[0].lower() in ("data", "dataset", "obj")]
    if len(descriptions) > 1 and len(usual) != 1:
        names = " and ".join(each.path for each in descriptions[:3])
        raise LayoutProblem(f"{names} both describe a data set; keep only one of the files")
    return next(iter(usual or descriptions), None)


def describe_yaml(path: str, data: bytes) -> Description | None:
    """Return the content of a ``data.yaml``, or None if it does not describe a data set.

    Raises:
        LayoutProblem: The file is not YAML, or a value has the wrong form.
    """
    try:
        document = read_yaml_texts(decode_text(data, path), path)
    except InputError as error:
        raise LayoutProblem(f"{error}; correct it") from None
    if not isinstance(document, dict) or not ({"train", "val", "names"} & set(document)):
        return None
    description = Description(path, base=str(document.get("path") or ""))
    for key, split in _SPLIT_KEYS.items():
        value = document.get(key)
        entries = value if isinstance(value, list) else [value] if value else []
        if not all(isinstance(entry, str) for entry in entries):
            raise LayoutProblem(f"{path}: {key} is {value!r}; write the path of a folder or of a list of images")
        if entries:
            description.paths.setdefault(split, [entry.strip() for entry in entries])
    description.names = _names(path, document.get("names"))
    description.has_keypoints = bool(document.get("kpt_shape"))
    return description


def _names(path: str, value: Any) -> list[str] | None:
    """Return class names from a list or from a mapping of numbers to names."""
    if value is None:
        return None
    if isinstance(value, list):
        return [str(name) for name in value]
    if isinstance(value, dict):
        try:
            numbered = {int(number): str(name) for number, name in value.items()}
        except (TypeError, ValueError):
            numbered = {}
        if numbered and sorted(numbered) == list(range(len(value))):
            return [numbered[number] for number in range(len(numbered))]
    raise LayoutProblem(f"{path}: names is {str(value)[:80]}; write a list of the classes, or number them all from 0")


def describe_darknet(path: str, data: bytes) -> Description:
    """Return the content of darknet's ``obj.data``: lines such as ``train = data/train.txt``.

    Raises:
        LayoutProblem: The file is not text.
    """
    try:
        lines = decode_text(data, str(path)).splitlines()
    except InputError as error:
        raise LayoutProblem(str(error)) from None
    description = Description(path)
    for line in lines:
        key, equals, value = (part.strip() for part in line.partition("="))
        if equals and value and key in _SPLIT_KEYS:
            description.paths.setdefault(_SPLIT_KEYS[key], [value])
        elif key == "names" and value:
            description.names_file = value
    return description


def path_of(tree: Tree, description: Description, entry: str) -> str | None:
    """Return the folder or list of images that an entry of a description means, or None.

    A path from a different machine is matched by its last parts, a pattern (``images/*.jpg``) by its folder.
    """
    entry = entry.replace("\\", "/")
    if "*" in entry:
        entry = entry[: entry.index("*")].rpartition("/")[0]
    path = nearest(tree, entry, description.base)
    if path == "" and entry.strip("./"):
        return None
    return path


def label_folder(tree: Tree, images: str) -> str:
    """Return the folder of the label files for an image folder; the same folder if they lie next to the images."""
    parts = images.split("/")
    for i in reversed(range(len(parts))):
        if parts[i].lower() in ("images", "image"):
            for name in ("labels", "label", "Labels"):
                folder = "/".join([*parts[:i], name, *parts[i + 1 :]])
                if folder in tree:
                    return folder
    inside = next((join(images, name) for name in ("labels", "label") if join(images, name) in tree), None)
    if inside is None and images == "" and "labels" in tree:
        inside = "labels"
    return images if inside is None else inside


def _described(tree: Tree, description: Description, pairs: Pairs, left_out: list[str]) -> dict[str, SplitFiles]:
    """Return the splits that a description names; a path that does not exist is replaced by a folder of the split."""
    splits: dict[str, SplitFiles] = {}
    for split, entries in description.paths.items():
        candidates = [path_of(tree, description, entry) for entry in entries]
        paths = [path for path in candidates if path is not None and (path not in tree or tree.images(path))]
        if len(paths) < len(entries):
            if split in pairs.splits:
                splits[split] = pairs.splits[split]
                continue
            missing = next(entry for entry, path in zip(entries, candidates, strict=True) if path not in paths)
            fault = f"{description.path} names {missing} for {split!r}, which has no images"
            if split in REQUIRED_SPLITS and (paths or not pairs.single):
                without = f", or remove val from {description.path} to divide train" if split == "val" else ""
                raise LayoutProblem(f"{fault}; correct the path, or put images there{without}")
            if split not in REQUIRED_SPLITS:
                left_out.append(fault)
            continue
        splits[split] = _files_of(tree, paths, pairs)
    for split in REQUIRED_SPLITS:
        if split not in splits and split in pairs.splits:
            splits[split] = pairs.splits[split]
    return splits


def _files_of(tree: Tree, paths: list[str], pairs: Pairs) -> SplitFiles:
    """Return the files of a split that consists of one folder, or of several folders and lists."""
    if len(paths) == 1 and paths[0] in tree:
        folder = paths[0]
        if not tree.has_images(folder):
            # Some data sets name the parent folder of the split, which contains images/ and labels/.
            inside = images_next_to(tree, folder, [])
            folder = folder if inside is None or inside == folder else inside
        same = [pair for pair in (*pairs.splits.values(), pairs.single) if pair is not None and pair.images == folder]
        return same[0] if same else SplitFiles(label_folder(tree, folder), folder)
    images = tree.common_image_folder()
    folders = [path for path in paths if path in tree]
    if len(folders) == len(paths):
        shared = posixpath.commonpath(folders)
        images = shared if tree.images(shared) else images
    labels = pairs.single.annotations if pairs.single is not None else label_folder(tree, images)
    return SplitFiles(labels, images, tuple(paths))


def _list_files(tree: Tree) -> dict[str, str]:
    """Return lists of images at the root that are named after splits, by split."""
    lists: dict[str, str] = {}
    for path in tree.files["txt"]:
        stem = path[: -len(".txt")]
        if "/" not in path and split_of(stem) and stem not in tree.folders[""].stems.get("image", ()):
            split = split_of(stem)
            if split in lists:
                raise LayoutProblem(f"{lists[split]} and {path} both list the images of {split!r}; remove one list")
            lists[split] = path
    return lists


def _extra(tree: Tree, description: Description | None) -> tuple[str, ...]:
    """Return the files that describe the data set and name its classes, the most reliable first."""
    files = [description.path] if description is not None else []
    if description is not None and description.names is None and description.names_file:
        named = nearest(tree, description.names_file)
        files += [named] if named and is_file(tree, named) else []
    candidates = [*tree.files["names"], *tree.files["labels"]]
    candidates += [path for path in tree.files["txt"] if path.rpartition("/")[2][: -len(".txt")] in NAME_FILES]
    files += sorted(candidates, key=lambda path: (path.count("/"), path))
    return tuple(dict.fromkeys(files))


def _tool(tree: Tree, description: Description | None) -> str:
    if any(path.rpartition("/")[2] == "_darknet.labels" for path in tree.files["labels"]):
        return "YOLO as Roboflow exports it for darknet"
    if description is None:
        return "YOLO without data.yaml"
    return "YOLO of darknet" if description.path.endswith(".data") else f"YOLO with {description.path}"


def class_names(extra: Mapping[str, bytes], where: str) -> list[str]:
    """Return the names of classes from the first file that has names of classes.

    Files with the same name in several folders must have the same names of classes.

    Args:
        extra: The content, by path, of each file that may name classes, the most reliable file first.
        where: The data set, for messages.

    Raises:
        InputError: There are no names of classes, or lists of names differ.
    """
    lists: dict[str, list[str]] = {}
    for path, data in extra.items():
        if path.endswith((".yaml", ".yml")):
            try:
                described = describe_yaml(path, data)
            except LayoutProblem as problem:
                raise InputError(f"{where}: {problem}") from None
            if described is not None and described.names:
                return described.names
        elif not path.endswith(".data"):
            names = [line.strip() for line in decode_text(data, f"{where}/{path}").rstrip().splitlines()]
            if names:
                lists[path] = names
    for path, names in lists.items():
        first = next(iter(lists))
        if path.rpartition("/")[2] == first.rpartition("/")[2] and names != lists[first]:
            raise InputError(f"{where}: {first} and {path} have different names of classes; keep the correct file")
    if lists:
        return next(iter(lists.values()))
    raise InputError(
        f"{where}: no names of classes; write them into classes.txt, a name on each line, in the order of their numbers"
    )
