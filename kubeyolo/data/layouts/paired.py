"""Recognizes layouts with a label file for each image: YOLO's text, the XML of Pascal VOC, the JSON of LabelMe.

The label files lie next to the images, or in a folder whose path is that of the image folder with ``images`` replaced
by ``labels``. A split is recognized from the name of a folder in the path, or is defined by a list of images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kubeyolo.data.layouts.names import split_of
from kubeyolo.data.layouts.tree import Tree
from kubeyolo.data.layouts.types import Layout, LayoutProblem, SplitFiles, make_layout


@dataclass(frozen=True)
class PairedFormat:
    """How label files of a format are recognized.

    Attributes:
        kind: The kind of the label files (:data:`kubeyolo.data.layouts.names.KINDS`).
        folders: Names of folders of label files, in lower case.
        others: Stems of files with the same kind that are not label files.
    """

    kind: str
    folders: frozenset[str]
    others: frozenset[str] = frozenset()


@dataclass
class Pairs:
    """Label files with their images: the splits by name, and the label files without a split."""

    splits: dict[str, SplitFiles] = field(default_factory=dict)
    single: SplitFiles | None = None

    def __bool__(self) -> bool:
        return bool(self.splits) or self.single is not None


_LABELME = PairedFormat("json", frozenset())


def find_pairs(tree: Tree, form: PairedFormat) -> Pairs:
    """Return the folders of label files and of their images.

    Folders below a folder whose name means neither labels nor a split are separate data sets.

    Raises:
        LayoutProblem: Two folders mean the same split.
    """
    pairs = Pairs()
    for path in sorted(tree.folders, key=lambda each: (each.count("/"), each)):
        stems = tree.folders[path].stems.get(form.kind, set()) - form.others
        if not stems:
            continue
        pair = _pair_of(tree, form, path, stems)
        if pair is None:
            continue
        split, files = pair
        if not split:
            pairs.single = pairs.single or files
        elif pairs.splits.setdefault(split, files) != files:
            first = pairs.splits[split].annotations
            raise LayoutProblem(
                f"{first}/ and {files.annotations}/ are both for split {split!r}; remove or rename one of the folders"
            )
    return pairs


def _pair_of(tree: Tree, form: PairedFormat, path: str, stems: set[str]) -> tuple[str, SplitFiles] | None:
    """Return the split of a folder of label files ('' for no split) and its files; None if no images belong to it."""
    names = path.split("/") if path else []
    labels = next((i for i in reversed(range(len(names))) if names[i].lower() in form.folders), None)
    means = next((i for i, name in enumerate(names) if i != labels and split_of(name)), None)
    first = min((i for i in (labels, means) if i is not None), default=len(names))
    if first and (labels is not None or means is not None):
        return None
    split = split_of(names[means]) if means is not None else ""
    if labels is None:
        if not _is_flat(tree, path, stems):
            return None
        if means is not None:
            folder = "/".join(names[: means + 1])
            return split, SplitFiles(folder, folder)
        folder = tree.common_image_folder() if path else ""
        return ("", SplitFiles(folder, folder)) if _is_inside(path, folder) and len(names) <= 1 else None
    end = max(labels, means if means is not None else 0) + 1
    base, rest = "/".join(names[:labels]), names[labels + 1 : end]
    images = images_next_to(tree, base, rest)
    return None if images is None else (split, SplitFiles("/".join(names[:end]), images))


def images_next_to(tree: Tree, base: str, rest: list[str]) -> str | None:
    """Return the image folder for the label folder ``base/labels/rest``."""
    parent = tree.image_folder(base)
    for folder in (parent, base):
        if folder is None:
            continue
        images = "/".join(filter(None, [folder, *rest]))
        if rest and tree.images(images):
            return images
        if rest:
            meant = [child for child in tree.children(folder) if split_of(child) == split_of(rest[-1])]
            if len(meant) == 1 and split_of(rest[-1]) and tree.images(meant[0]):
                return meant[0]
    if parent is not None:
        return parent
    return base if tree.has_images(base) else None


def _is_inside(path: str, folder: str) -> bool:
    return not folder or path == folder or path.startswith(f"{folder}/")


def _is_flat(tree: Tree, path: str, stems: set[str]) -> bool:
    """Tell whether label files lie next to images of the same names."""
    return not stems.isdisjoint(tree.folders[path].stems.get("image", ()))


def with_members(pairs: Pairs, lists: Mapping[str, str], tree: Tree) -> dict[str, SplitFiles]:
    """Return the splits that lists of images define, for label files in one folder or in a folder for each split.

    Args:
        pairs: The label files.
        lists: The path of the list of each split.
        tree: The files.
    """
    splits: dict[str, SplitFiles] = {}
    for split, path in lists.items():
        whole = pairs.splits.get(split) or pairs.single
        if whole is None and pairs.splits:
            whole = SplitFiles("", tree.common_image_folder())
        if whole is not None:
            splits[split] = SplitFiles(whole.annotations, whole.images, (path,))
    return splits


def unlabelled_val(tree: Tree, splits: Mapping[str, SplitFiles]) -> str:
    """Return a folder that is named after the validation split and has images that belong to no split, or ''."""
    taken = [split.images for split in splits.values()]
    parents = dict.fromkeys(("", tree.image_folder("") or ""))
    for child in (child for parent in parents for child in tree.children(parent)):
        if split_of(child) == "val" and tree.images(child) and not any(_is_inside(each, child) for each in taken):
            return child
    return ""


def nearest(tree: Tree, entry: str, base: str = "") -> str | None:
    """Return the file or folder that a path from a different machine means, or None.

    Leading folders are dropped until the path exists: ``/home/me/cells/images/train`` may be ``images/train``.
    """
    parts = [part for part in f"{base}/{entry}".replace("\\", "/").split("/") if part not in ("", ".")]
    clean: list[str] = []
    for part in parts:
        if part == ".." and clean:
            clean.pop()
        elif part != "..":
            clean.append(part)
    if not clean:
        return ""
    for start in range(len(clean)):
        path = "/".join(clean[start:])
        if path in tree or is_file(tree, path):
            return path
    return None


def is_file(tree: Tree, path: str) -> bool:
    """Tell whether a path is a text file of the data set."""
    parent, _, name = path.rpartition("/")
    stem, _, suffix = name.rpartition(".")
    folder = tree.folders.get(parent)
    return folder is not None and stem in folder.stems.get(suffix.lower(), ())


def find_labelme(tree: Tree) -> Layout | None:
    """Return the layout of a LabelMe data set, or None if no file looks like LabelMe."""
    pairs = find_pairs(tree, _LABELME)
    return make_layout("labelme", "LabelMe", pairs.splits, pairs.single, (), unlabelled_val(tree, pairs.splits))
