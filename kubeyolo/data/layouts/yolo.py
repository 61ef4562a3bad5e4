"""YOLO: a text file of boxes for each image, splits and classes in ``data.yaml``, in darknet's files, or by folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from kubeyolo.config.text_file import decode_text
from kubeyolo.data.layouts.names import split_of
from kubeyolo.data.layouts.paired import (
    PairedFormat,
    Pairs,
    find_pairs,
    images_beside,
    is_file,
    nearest,
    unlabelled_val,
    with_members,
)
from kubeyolo.data.layouts.tree import Tree, join
from kubeyolo.data.layouts.types import REQUIRED_SPLITS, Candidate, LayoutProblem, ReadFile, SplitFiles, settle
from kubeyolo.errors import InputError

NAME_FILES = frozenset({"classes", "obj", "coco", "voc", "names", "class_names", "predefined_classes", "_darknet"})
"""Stems of files that list the names of classes, one on a line."""

LABELS = PairedFormat("txt", frozenset({"labels", "label"}), NAME_FILES | {"train", "val", "valid", "test"})
_SPLIT_KEYS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class _TextLoader(yaml.SafeLoader):
    """Reads YAML with all values as they are written: a class ``no`` is not False, and ``007`` not 7."""


_TextLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass
class Description:
    """What ``data.yaml`` or darknet's ``obj.data`` says.

    Attributes:
        path: The file.
        base: The folder that its places are relative to, as written.
        places: Folders and lists of images by split, as written.
        names: Class names, or None where it has none.
        names_file: The file of class names that it names, as written, or ''.
        has_keypoints: Whether keypoints follow the boxes in label files.
    """

    path: str
    base: str = ""
    places: dict[str, list[str]] = field(default_factory=dict)
    names: list[str] | None = None
    names_file: str = ""
    has_keypoints: bool = False


def find_yolo(tree: Tree, read: ReadFile | None) -> Candidate | None:
    """Return the YOLO data set that the files make, what is wrong with it, or None where nothing looks like YOLO.

    Args:
        tree: The files.
        read: Reads ``data.yaml`` and darknet's files; without it folders alone say the splits.
    """
    try:
        pairs = find_pairs(tree, LABELS)
        description = find_description(tree, read) if read else None
        if not pairs and not _has_labels(tree):
            return None
        extra, left_out = _extra(tree, description), list[str]()
        if description is not None and description.places:
            splits = _described(tree, description, pairs, left_out)
        else:
            lists = _list_files(tree)
            splits = with_members(pairs, lists, tree) if lists else pairs.splits
        single = None if splits else pairs.single
        if not splits and single is None:
            return None
        members = [each for files in splits.values() for each in files.members if is_file(tree, each)]
        extra = tuple(dict.fromkeys([*extra, *members]))
        unlabelled = unlabelled_val(tree, splits)
        return settle("yolo", _tool(tree, description), splits, single, extra, unlabelled, tuple(left_out))
    except LayoutProblem as problem:
        return Candidate("yolo", problem=str(problem))


def _has_labels(tree: Tree) -> bool:
    """Tell whether a text file has the name of an image."""
    return any(path.rpartition("/")[2][: -len(".txt")] in tree.image_stems for path in tree.files["txt"])


def find_description(tree: Tree, read: ReadFile) -> Description | None:
    """Return what the file at the root says that describes the data set, or None where there is no such file.

    Raises:
        LayoutProblem: There are several.
    """
    found = []
    for path in tree.files["yaml"]:
        if "/" not in path:
            described = describe_yaml(path, read(path))
            if described is not None:
                found.append(described)
    if not found:
        found = [describe_darknet(path, read(path)) for path in tree.files["data"] if "/" not in path]
    usual = [each for each in found if each.path.rpartition(".")[0].lower() in ("data", "dataset", "obj")]
    if len(found) > 1 and len(usual) != 1:
        names = " and ".join(each.path for each in found[:3])
        raise LayoutProblem(f"{names} both describe a data set; keep one")
    return next(iter(usual or found), None)


def describe_yaml(path: str, data: bytes) -> Description | None:
    """Return what a ``data.yaml`` says, or None where it does not describe a data set.

    Raises:
        LayoutProblem: It is not YAML, or a value has the wrong form.
    """
    try:
        # S506: the loader is a SafeLoader that knows fewer types.
        document = yaml.load(decode_text(data, str(path)), Loader=_TextLoader)  # noqa: S506
    except (yaml.YAMLError, InputError, RecursionError) as error:
        raise LayoutProblem(f"{path} cannot be read as YAML ({' '.join(str(error).split())}); correct it") from None
    if not isinstance(document, dict) or not ({"train", "val", "names"} & set(document)):
        return None
    found = Description(path, base=str(document.get("path") or ""))
    for key, split in _SPLIT_KEYS.items():
        value = document.get(key)
        entries = value if isinstance(value, list) else [value] if value else []
        if not all(isinstance(entry, str) for entry in entries):
            raise LayoutProblem(f"{path}: {key} is {value!r}; write a folder, a list of images, or several of them")
        if entries:
            found.places.setdefault(split, [entry.strip() for entry in entries])
    found.names = _names(path, document.get("names"))
    found.has_keypoints = bool(document.get("kpt_shape"))
    return found


def _names(path: str, value: Any) -> list[str] | None:
    """Return class names that are written as a list or as a mapping from numbers."""
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
    raise LayoutProblem(f"{path}: names must list the classes, or number all of them from 0; found {str(value)[:80]}")


def describe_darknet(path: str, data: bytes) -> Description:
    """Return what darknet's ``obj.data`` says: lines such as ``train = data/train.txt``.

    Raises:
        LayoutProblem: It is not text.
    """
    try:
        lines = decode_text(data, str(path)).splitlines()
    except InputError as error:
        raise LayoutProblem(str(error)) from None
    found = Description(path)
    for line in lines:
        key, equals, value = (part.strip() for part in line.partition("="))
        if equals and value and key in _SPLIT_KEYS:
            found.places.setdefault(_SPLIT_KEYS[key], [value])
        elif key == "names" and value:
            found.names_file = value
    return found


def places_of(tree: Tree, description: Description, entry: str) -> str | None:
    """Return the folder or list of images that an entry of a description means, or None.

    Paths of other machines are found by their end, a pattern (``images/*.jpg``) by its folder.
    """
    entry = entry.replace("\\", "/")
    if "*" in entry:
        entry = entry[: entry.index("*")].rpartition("/")[0]
    found = nearest(tree, entry, description.base)
    if found == "" and entry.strip("./"):
        return None
    return found


def label_folder(tree: Tree, images: str) -> str:
    """Return the folder of the label files of an image folder; the folder itself where they lie next to the images."""
    parts = images.split("/")
    for i in reversed(range(len(parts))):
        if parts[i].lower() in ("images", "image"):
            for name in ("labels", "label", "Labels"):
                found = "/".join([*parts[:i], name, *parts[i + 1 :]])
                if found in tree:
                    return found
    inside = next((join(images, name) for name in ("labels", "label") if join(images, name) in tree), None)
    if inside is None and images == "" and "labels" in tree:
        inside = "labels"
    return images if inside is None else inside


def _described(tree: Tree, description: Description, pairs: Pairs, left_out: list[str]) -> dict[str, SplitFiles]:
    """Return the splits that a description names; folders named after splits take the place of what is not found."""
    splits: dict[str, SplitFiles] = {}
    for split, entries in description.places.items():
        found = [places_of(tree, description, entry) for entry in entries]
        places = [place for place in found if place is not None and (place not in tree or tree.images(place))]
        if len(places) < len(entries):
            if split in pairs.splits:
                splits[split] = pairs.splits[split]
                continue
            missing = next(entry for entry, place in zip(entries, found, strict=True) if place not in places)
            fault = f"{description.path} names {missing} for {split!r}, where no images are"
            if split in REQUIRED_SPLITS and (places or not pairs.single):
                without = f", or remove val from {description.path}: train is divided then" if split == "val" else ""
                raise LayoutProblem(f"{fault}; correct the path, or put the images there{without}")
            if split not in REQUIRED_SPLITS:
                left_out.append(fault)
            continue
        splits[split] = _files_of(tree, places, pairs)
    for split in REQUIRED_SPLITS:
        if split not in splits and split in pairs.splits:
            splits[split] = pairs.splits[split]
    return splits


def _files_of(tree: Tree, places: list[str], pairs: Pairs) -> SplitFiles:
    """Return a split of one folder, or of several folders and lists."""
    if len(places) == 1 and places[0] in tree:
        folder = places[0]
        if not tree.has_images(folder):
            # Some name the folder of the split, which has images/ and labels/ in it.
            inside = images_beside(tree, folder, [])
            folder = folder if inside is None or inside == folder else inside
        known = [pair for pair in (*pairs.splits.values(), pairs.single) if pair is not None and pair.images == folder]
        return known[0] if known else SplitFiles(label_folder(tree, folder), folder)
    images = tree.common_image_folder()
    folders = [place for place in places if place in tree]
    if len(folders) == len(places):
        shared = _common(folders)
        images = shared if tree.images(shared) else images
    labels = pairs.single.annotations if pairs.single is not None else label_folder(tree, images)
    return SplitFiles(labels, images, tuple(places))


def _common(folders: list[str]) -> str:
    parts = [folder.split("/") for folder in folders]
    shared = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return "/".join(shared)


def _list_files(tree: Tree) -> dict[str, str]:
    """Return lists of images at the root that are named after splits, by split."""
    lists: dict[str, str] = {}
    for path in tree.files["txt"]:
        stem = path[: -len(".txt")]
        if "/" not in path and split_of(stem) and stem not in tree.folders[""].stems.get("image", ()):
            split = split_of(stem)
            if split in lists:
                raise LayoutProblem(f"{lists[split]} and {path} both list the images of {split!r}; remove one of them")
            lists[split] = path
    return lists


def _extra(tree: Tree, description: Description | None) -> tuple[str, ...]:
    """Return the files that describe the data set and name its classes, the one to be believed first."""
    found = [description.path] if description is not None else []
    if description is not None and description.names is None and description.names_file:
        named = nearest(tree, description.names_file)
        found += [named] if named and is_file(tree, named) else []
    candidates = [*tree.files["names"], *tree.files["labels"]]
    candidates += [path for path in tree.files["txt"] if path.rpartition("/")[2][: -len(".txt")] in NAME_FILES]
    found += sorted(candidates, key=lambda path: (path.count("/"), path))
    return tuple(dict.fromkeys(found))


def _tool(tree: Tree, description: Description | None) -> str:
    if any(path.rpartition("/")[2] == "_darknet.labels" for path in tree.files["labels"]):
        return "YOLO as Roboflow exports it for darknet"
    if description is None:
        return "YOLO without data.yaml"
    return "YOLO of darknet" if description.path.endswith(".data") else f"YOLO with {description.path}"


def class_names(extra: Mapping[str, bytes], where: str) -> list[str]:
    """Return the names of classes from the files that describe a data set, the first that has some.

    Lists of names in several folders must agree.

    Args:
        extra: The content of each such file by its path, in order.
        where: The data set, for messages.

    Raises:
        InputError: There are none, or lists that differ.
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
            names = [line.strip() for line in decode_text(data, f"{where}/{path}").splitlines()]
            while names and not names[-1]:
                names.pop()
            if names:
                lists[path] = names
    for path, names in lists.items():
        first = next(iter(lists))
        if path.rpartition("/")[2] == first.rpartition("/")[2] and names != lists[first]:
            raise InputError(f"{where}: {first} and {path} name other classes; keep the one that is right")
    if lists:
        return next(iter(lists.values()))
    raise InputError(
        f"{where}: no names of classes; write them into classes.txt, one on each line, in the order of their numbers"
    )
