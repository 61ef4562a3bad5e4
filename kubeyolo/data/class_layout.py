"""The layout of a classification set: a folder of images for each class, with or without folders for train and val."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kubeyolo.data.layouts.names import split_of
from kubeyolo.errors import InputError
from kubeyolo.file_kinds import IMAGE_SUFFIXES
from kubeyolo.formats import counted, share_of

HELD_OUT = 8
"""Without a folder val, every eighth image of a class is held out for validation."""

_SPLITS = ("train", "val")
_MOST_NAMES = 5

Files = Mapping[str, tuple[str, ...]]
"""The image files of each class, as paths relative to the root."""


@dataclass(frozen=True)
class ClassLayout:
    """The classes of a classification set, and its image files.

    Attributes:
        classes: The names of the classes, sorted.
        images: The files of the folders of the classes, in the folder ``train`` if there is one.
        val: The files of the folder ``val``; None if every eighth image is held out.
        warnings: Warnings about images that are left out and about an empty folder ``val``.
    """

    classes: tuple[str, ...]
    images: Files
    val: Files | None = None
    warnings: tuple[str, ...] = ()

    def parts(self) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
        """Return file and class number of the images to train on, and of the held-out images."""
        train, held = [], []
        for label, name in enumerate(self.classes):
            paths = self.images[name]
            if self.val is not None:
                train += [(path, label) for path in paths]
                held += [(path, label) for path in self.val.get(name, ())]
                continue
            for number, path in enumerate(paths):
                (train if number % HELD_OUT else held).append((path, label))
        return train, held

    @property
    def files(self) -> list[str]:
        """All image files."""
        parts = [self.images] if self.val is None else [self.images, self.val]
        return [path for part in parts for name in sorted(part) for path in part[name]]


def class_layout(paths: Iterable[str], source: str) -> ClassLayout:
    """Return the layout of a classification set: folders of classes, or ``train`` and ``val`` with folders of classes.

    A folder ``train`` contains the classes if it has folders of images, as in ImageNet. Images directly in ``train`` or
    ``val`` are then left out with a warning. Hidden files and folders are left out, and so are folders next to
    ``train`` other than ``val``.

    Args:
        paths: Paths of all files relative to the root, with "/"; a path that ends with "/" is a folder.
        source: The set, for messages.

    Raises:
        InputError: There are fewer than 2 classes, a class has too few images, a class of val is not in train, or all
            images are directly in folders such as train and val.
    """
    tree = _Tree(paths)
    top = sorted(tree.folders[""])
    splits = {split: [name for name in top if split_of(name) == split and tree.has_classes(name)] for split in _SPLITS}
    for split, names in splits.items():
        if len(names) > 1:
            both = " and ".join(names)
            raise InputError(f"{source}: {both} both contain the classes of {split}; keep one of these folders")
    if not splits["train"]:
        if splits["val"]:
            raise InputError(
                f"{source}: {splits['val'][0]} has a folder of images for each class, but there is no folder train "
                "with folders of classes; add it, or give the URI of the folder with the classes"
            )
        _refuse_splits_as_classes(tree, top, source)
        return ClassLayout(*_classes(tree, "", source, 2))
    train = splits["train"][0]
    val = _val_folder(tree, top, splits["val"], source)
    classes, images = _classes(tree, train, source, 2 if val is None else 1)
    if val is None:
        return ClassLayout(classes, images, None, (*_loose_warnings(tree, [train]), *_empty_val_warnings(top)))
    folders = {name: f"{val}/{name}" for name in sorted(tree.folders[val])}
    held = {name: tree.images[folder] for name, folder in folders.items() if folder in tree.images}
    unknown = [repr(name) for name in held if name not in images]
    if unknown:
        more = f" and {len(unknown) - _MOST_NAMES} more" if len(unknown) > _MOST_NAMES else ""
        raise InputError(
            f"{source}/{val}: {train} has no class {', '.join(unknown[:_MOST_NAMES])}{more}; give these "
            "classes images in train, or move their folders away"
        )
    return ClassLayout(classes, images, held, tuple(_loose_warnings(tree, [train, val])))


def _refuse_splits_as_classes(tree: _Tree, top: list[str], source: str) -> None:
    """Refuse folders named after splits if no other folder could be a class."""
    splits = [name for name in top if name in tree.images and split_of(name)]
    if len(splits) > 1 and all(split_of(name) for name in top):
        raise InputError(
            f"{source}: the images of {' and '.join(splits)} are not in folders of classes; move them into folders "
            f"such as {splits[0]}/<class>/"
        )


def _loose_warnings(tree: _Tree, splits: list[str]) -> list[str]:
    """Warn about the images directly in the folders of splits, which have no class."""
    loose = [path for split in splits for path in tree.images.get(split, ())]
    if not loose:
        return []
    inner = [f"{split}/{name}" for split in splits for name in tree.folders[split]]
    whole = len(loose) + sum(len(tree.images.get(folder, ())) for folder in inner)
    where = " or ".join(split for split in splits if split in tree.images)
    return [
        f"{share_of(len(loose), whole)} images are directly in {where}, not in the folder of a class, and are left "
        f"out; the first: {loose[0]}; move them into the folders of their classes, or remove them"
    ]


def _empty_val_warnings(top: list[str]) -> list[str]:
    """Warn about a folder ``val`` without images; the images of train are held out."""
    empty = [name for name in top if split_of(name) == "val"]
    consequence = "every eighth image of each class is held out of train instead"
    return [f"{name} has no images; {consequence}" for name in empty[:1]]


class _Tree:
    """The folders and images of a set; hidden files and folders are left out.

    Attributes:
        folders: Names of the folders in each folder.
        images: Paths of the images in each folder, sorted.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self.folders: dict[str, set[str]] = {"": set()}
        images: dict[str, list[str]] = {}
        for path in paths:
            *parents, name = path.split("/")
            if any(part.startswith(".") for part in (*parents, name)):
                continue
            folder = ""
            for parent in parents:
                self.folders.setdefault(folder, set()).add(parent)
                folder = f"{folder}/{parent}" if folder else parent
            self.folders.setdefault(folder, set())
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                images.setdefault(folder, []).append(path)
        self.images = {folder: tuple(sorted(found)) for folder, found in images.items()}

    def has_classes(self, folder: str) -> bool:
        """Tell whether a folder has folders of images."""
        return any(f"{folder}/{name}" in self.images for name in self.folders.get(folder, set()))


def _val_folder(tree: _Tree, top: list[str], with_classes: list[str], source: str) -> str | None:
    if with_classes:
        return with_classes[0]
    for name in top:
        if split_of(name) == "val" and name in tree.images:
            raise InputError(
                f"{source}: the {len(tree.images[name])} images of {name} are not in folders of classes; move them "
                f"into {name}/<class>/, or move the folder away: then every eighth image of train is held out"
            )
    return None


def _classes(tree: _Tree, root: str, source: str, least: int) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Return the classes of a folder, and their images; each class needs at least ``least`` images."""
    where = f"{source}/{root}" if root else source
    classes = tuple(sorted(tree.folders[root]))
    if len(classes) < 2:
        raise InputError(f"{where}: pretraining needs a folder of images for each of at least 2 classes")
    images = {name: tree.images.get(f"{root}/{name}" if root else name, ()) for name in classes}
    for name, paths in images.items():
        if len(paths) < least:
            raise InputError(
                f"{where}/{name}: a class needs at least {counted(least, 'image')}, {name!r} has {len(paths)}"
            )
    return classes, images
