"""Recognizes COCO JSON as written by COCO itself, this project, Roboflow, CVAT, FiftyOne, Label Studio and Azure ML.

An annotation file lies at the root, in ``annotations/``, or in the folder of a split. The name of the file, without
words such as ``instances`` or ``annotations``, is the name of its split; if the name has only such words, the folder
names the split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from kubeyolo.data.layouts.names import is_image_name, split_of, words_of
from kubeyolo.data.layouts.paired import unlabelled_val
from kubeyolo.data.layouts.tree import Tree, join
from kubeyolo.data.layouts.types import REQUIRED_SPLITS, Layout, LayoutProblem, SplitFiles, make_layout

_ANNOTATION_FOLDERS = frozenset({"annotations", "annotation", "ann", "anns", "labels", "coco", "json"})
# COCO's files for other tasks, and files that tools store next to annotations.
_OTHER_TASKS = ("captions_", "person_keypoints_", "image_info_", "panoptic_", "stuff_")
_OTHER_STEMS = """
categories class_names classes config dataset_info dataset_infos frames info license licenses manifest meta
metadata notes package samples settings
"""
_NOT_ANNOTATIONS = frozenset(_OTHER_STEMS.split())
_YEAR = re.compile(r"(train|val|test)\d{4}")
_MOST_SHOWN = 5


@dataclass(frozen=True)
class _File:
    """An annotation file.

    Attributes:
        base: The folder that contains its images, directly or in subfolders.
        token: Its name without ``instances_``; '' if the name has only filler words.
        split: The split that its name means, otherwise the split that its folder means; '' if there is none.
        is_named: Whether ``split`` comes from the name of the file, not from the name of its folder.
    """

    path: str
    base: str
    token: str
    split: str
    is_named: bool


def find_coco(tree: Tree) -> Layout | None:
    """Return the layout of a COCO data set, or None if no file looks like COCO."""
    files = list(_annotation_files(tree))
    if not files:
        return None
    left_out: list[str] = []
    splits = _splits(tree, files, left_out)
    single = None if splits else _single(tree, files)
    unlabelled = unlabelled_val(tree, splits)
    return make_layout("coco", _tool(files), splits, single, (), unlabelled, tuple(left_out))


def _annotation_files(tree: Tree) -> Iterator[_File]:
    for path in sorted(tree.files["json"]):
        folder, _, name = path.rpartition("/")
        stem = name[: -len(".json")]
        if path.count("/") > 3 or stem.startswith(_OTHER_TASKS) or stem.lower() in _NOT_ANNOTATIONS:
            continue
        if ".createml" in stem or is_image_name(stem) or _is_of_an_image(tree, stem):
            continue
        parent, _, last = folder.rpartition("/")
        base = parent if last.lower() in _ANNOTATION_FOLDERS else folder
        token = stem.removeprefix("instances_") if words_of(stem) else ""
        # Deeper folders that do not mean a split are separate data sets.
        if base and (not split_of(base) or words_of(base.rpartition("/")[0])):
            continue
        yield _File(path, base, token, split_of(stem) or split_of(base), bool(split_of(stem)))


def _is_of_an_image(tree: Tree, stem: str) -> bool:
    """Tell whether a file is named after an image, unless its name means a split (an image called ``train``)."""
    return stem in tree.image_stems and bool(words_of(stem)) and not split_of(stem)


def _splits(tree: Tree, files: list[_File], left_out: list[str]) -> dict[str, SplitFiles]:
    """Return the splits of the annotation files; add optional splits without images to ``left_out``."""
    splits: dict[str, SplitFiles] = {}
    for file in files:
        split, images = file.split, None
        if file.is_named:
            images = _folder_of_split(tree, file)
        elif split:
            images = _own_folder(tree, file.base) or _folder_of_split(tree, replace(file, base="", token=split))
        elif file.token:
            images = _folder_named(tree, file.base, file.token)
            split = file.token
        if images is None:
            if split in REQUIRED_SPLITS:
                if not file.is_named and file.base:
                    raise LayoutProblem(f"{file.path} has no images next to it; put the images in the same folder")
                folder = file.token if file.is_named else split
                raise LayoutProblem(
                    f"{file.path} has no image folder {folder}/ or images/{folder}/ next to it; "
                    "put the images of the split in one of these folders"
                )
            if file.split:
                left_out.append(f"{file.path} has no image folder {file.token}/")
            continue
        if split in splits:
            raise LayoutProblem(
                f"{splits[split].annotations} and {file.path} are both for split {split!r}; remove one of the files"
            )
        splits[split] = SplitFiles(file.path, images)
    return splits


def _own_folder(tree: Tree, base: str) -> str | None:
    """Return the image folder for annotations in the folder of their split, or next to all images."""
    if tree.has_images(base):
        return base
    folder = tree.image_folder(base)
    if folder is None:
        return None
    inside = next((child for child in tree.children(folder) if child.rpartition("/")[2].lower() == "default"), None)
    if inside and not tree.has_images(folder) and len(tree.children(folder)) == 1:
        return inside
    return folder


def _folder_named(tree: Tree, base: str, name: str) -> str | None:
    """Return the image folder ``name`` in ``base``, or in its ``images/`` or a similar folder."""
    parents = [base] + [child for child in tree.children(base) if not split_of(child)]
    shared = tree.image_folder(base)
    for parent in parents:
        if parent != base and shared not in (parent, None):
            continue
        exact = join(parent, name)
        alike = [child for child in tree.children(parent) if child.rpartition("/")[2].lower() == name.lower()]
        folder = exact if exact in tree else alike[0] if len(alike) == 1 else None
        if folder is not None and (parent == base or tree.images(folder)):
            return folder if tree.has_images(folder) else tree.image_folder(folder) or folder
    return None


def _folder_of_split(tree: Tree, file: _File) -> str | None:
    """Return the image folder of a file that is named after a split."""
    named = _folder_named(tree, file.base, file.token)
    if named is not None:
        return named
    if split_of(file.base) == file.split:
        return _own_folder(tree, file.base)
    shared = tree.image_folder(file.base)
    for parent in dict.fromkeys((file.base, shared if shared is not None else file.base)):
        alike = [child for child in tree.children(parent) if split_of(child) == file.split and tree.images(child)]
        if len(alike) > 1:
            folders = " and ".join(f"{child}/" for child in alike)
            raise LayoutProblem(
                f"{file.path} is for split {file.split!r}, and so are {folders}; remove or rename one of the folders"
            )
        if alike:
            return _own_folder(tree, alike[0]) or alike[0]
    if shared is not None and not _split_folders(tree, shared):
        return shared
    return file.base if tree.has_images(file.base) else None


def _split_folders(tree: Tree, parent: str) -> list[str]:
    return [child for child in tree.children(parent) if split_of(child) and tree.images(child)]


def _single(tree: Tree, files: list[_File]) -> SplitFiles | None:
    """Return the only annotation file for all images; a file with only filler words in its name is preferred."""
    plain = [file for file in files if not file.base and not file.token]
    chosen = plain or [file for file in files if not file.base and not file.split]
    if not chosen or not tree.images(""):
        return None
    if len(chosen) > 1:
        names = ", ".join(file.path for file in chosen[:_MOST_SHOWN])
        raise LayoutProblem(
            f"{len(chosen)} annotation files and no splits: {names}; keep one file, or name them after their splits "
            "(annotations/train.json, annotations/val.json) with the images in folders of the same names"
        )
    folders = _split_folders(tree, "") or _split_folders(tree, tree.image_folder("") or "")
    if folders:
        shown = ", ".join(f"{folder}/" for folder in folders[:_MOST_SHOWN])
        raise LayoutProblem(
            f"{chosen[0].path} is the only annotation file, but the images lie in folders of splits ({shown}); export "
            "the annotations of each split separately (annotations/train.json, annotations/val.json)"
        )
    images = _own_folder(tree, "")
    return SplitFiles(chosen[0].path, tree.common_image_folder() if images is None else images)


def _tool(files: list[_File]) -> str:
    """Return the layout in words, with the tool that uses such file names."""
    names = {file.path.rpartition("/")[2] for file in files}
    if "_annotations.coco.json" in names:
        return "COCO as Roboflow exports it"
    if any(file.path == "annotations/instances_default.json" for file in files):
        return "COCO as CVAT exports it"
    if "labels.json" in names:
        return "COCO as FiftyOne exports it"
    if "result.json" in names:
        return "COCO as Label Studio exports it"
    if any(_YEAR.search(name) for name in names):
        return "COCO as it is published"
    return "COCO"
