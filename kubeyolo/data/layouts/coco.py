"""COCO JSON, as COCO itself, this project, Roboflow, CVAT, FiftyOne, Label Studio and Azure ML lay it out.

An annotation file lies at the root, in ``annotations/``, or in the folder of a split. Its name, without words such as
``instances`` or ``annotations``, says its split; where nothing is left, its folder does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from kubeyolo.data.layouts.names import is_image_name, split_of, words_of
from kubeyolo.data.layouts.paired import unlabelled_val
from kubeyolo.data.layouts.tree import Tree, join
from kubeyolo.data.layouts.types import REQUIRED_SPLITS, Candidate, LayoutProblem, SplitFiles, settle

_ANNOTATION_FOLDERS = frozenset({"annotations", "annotation", "ann", "anns", "labels", "coco", "json"})
# COCO's files of other tasks, and what tools store next to annotations.
_OTHER_TASKS = ("captions_", "person_keypoints_", "image_info_", "panoptic_", "stuff_")
_NOT_ANNOTATIONS = frozenset(
    {
        "categories",
        "class_names",
        "classes",
        "config",
        "dataset_info",
        "dataset_infos",
        "frames",
        "info",
        "license",
        "licenses",
        "manifest",
        "meta",
        "metadata",
        "notes",
        "package",
        "samples",
        "settings",
    }
)
_YEAR = re.compile(r"(train|val|test)\d{4}")
_MOST_SHOWN = 5


@dataclass(frozen=True)
class _File:
    """An annotation file.

    Attributes:
        base: The folder that its images lie in or below.
        token: What its name says beyond fillers, as written; '' where it says nothing.
        split: The split that its name or else its folder means, or ''.
        is_named: Whether it is its name that says the split.
    """

    path: str
    base: str
    token: str
    split: str
    is_named: bool


def find_coco(tree: Tree) -> Candidate | None:
    """Return the COCO data set that the files make, what is wrong with it, or None where no file looks like COCO."""
    files = list(_annotation_files(tree))
    if not files:
        return None
    try:
        left_out: list[str] = []
        splits = _splits(tree, files, left_out)
        single = None if splits else _single(tree, files)
        if not splits and single is None:
            return None
        unlabelled = unlabelled_val(tree, splits)
        return settle("coco", _tool(files), splits, single, (), unlabelled, tuple(left_out))
    except LayoutProblem as problem:
        return Candidate("coco", problem=str(problem))


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
        # Deeper folders that mean no split are data sets of their own, one level too low.
        if base and (not split_of(base) or words_of(base.rpartition("/")[0])):
            continue
        yield _File(path, base, token, split_of(stem) or split_of(base), bool(split_of(stem)))


def _is_of_an_image(tree: Tree, stem: str) -> bool:
    """Tell whether a file has the name of an image, and not only because an image is called ``train``."""
    return stem in tree.image_stems and bool(words_of(stem)) and not split_of(stem)


def _splits(tree: Tree, files: list[_File], left_out: list[str]) -> dict[str, SplitFiles]:
    """Return the splits of those files that name one and have images; name the optional ones that have none."""
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
                    raise LayoutProblem(f"{file.path} has no images next to it; put the images of the split there")
                folder = file.token if file.is_named else split
                raise LayoutProblem(
                    f"{file.path} has no image folder {folder}/ next to it, nor images/{folder}/; "
                    "put the images of the split in one of them"
                )
            if file.split:
                left_out.append(f"{file.path} has no image folder {file.token}/")
            continue
        if split in splits:
            raise LayoutProblem(
                f"{splits[split].annotations} and {file.path} are both split {split!r}; remove one of them"
            )
        splits[split] = SplitFiles(file.path, images)
    return splits


def _own_folder(tree: Tree, base: str) -> str | None:
    """Return the image folder of annotations that lie in the folder of their split, or next to all images."""
    if tree.has_images(base):
        return base
    found = tree.image_folder(base)
    if found is None:
        return None
    inside = next((child for child in tree.children(found) if child.rpartition("/")[2].lower() == "default"), None)
    if inside and not tree.has_images(found) and len(tree.children(found)) == 1:
        return inside
    return found


def _folder_named(tree: Tree, base: str, name: str) -> str | None:
    """Return the folder of images ``name`` in ``base``, in ``images/``, or the like."""
    parents = [base] + [child for child in tree.children(base) if not split_of(child)]
    shared = tree.image_folder(base)
    for parent in parents:
        if parent != base and shared not in (parent, None):
            continue
        exact = join(parent, name)
        alike = [child for child in tree.children(parent) if child.rpartition("/")[2].lower() == name.lower()]
        found = exact if exact in tree else alike[0] if len(alike) == 1 else None
        if found is not None and (parent == base or tree.images(found)):
            return found if tree.has_images(found) else tree.image_folder(found) or found
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
            raise LayoutProblem(f"{file.path} is split {file.split!r}, and so are {folders}; remove or rename one")
        if alike:
            return _own_folder(tree, alike[0]) or alike[0]
    if shared is not None and not _split_folders(tree, shared):
        return shared
    return file.base if tree.has_images(file.base) else None


def _split_folders(tree: Tree, parent: str) -> list[str]:
    return [child for child in tree.children(parent) if split_of(child) and tree.images(child)]


def _single(tree: Tree, files: list[_File]) -> SplitFiles | None:
    """Return the one file of all images; a file whose name says nothing comes before one of any other name."""
    plain = [file for file in files if not file.base and not file.token]
    chosen = plain or [file for file in files if not file.base and not file.split]
    if not chosen or not tree.images(""):
        return None
    if len(chosen) > 1:
        names = ", ".join(file.path for file in chosen[:_MOST_SHOWN])
        raise LayoutProblem(
            f"{len(chosen)} annotation files and no splits: {names}; keep one, or name them after their splits "
            "(annotations/train.json, annotations/val.json) with the images in folders of the same names"
        )
    folders = _split_folders(tree, "") or _split_folders(tree, tree.image_folder("") or "")
    if folders:
        shown = ", ".join(f"{folder}/" for folder in folders[:_MOST_SHOWN])
        raise LayoutProblem(
            f"{chosen[0].path} is one annotation file, the images lie in the folders of splits {shown}; export the "
            "annotations of each split apart (annotations/train.json, annotations/val.json)"
        )
    images = _own_folder(tree, "")
    return SplitFiles(chosen[0].path, tree.common_image_folder() if images is None else images)


def _tool(files: list[_File]) -> str:
    """Return the layout in words, after the tool that writes such names."""
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
