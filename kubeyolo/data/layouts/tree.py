"""The files of a data set as a tree of folders, from their names alone."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

from kubeyolo.data.layouts.names import IMAGE_FOLDERS, KINDS, is_leftover, is_leftover_folder
from kubeyolo.errors import InputError
from kubeyolo.regular_files import CLASSES_SIZE, read_regular


@dataclass(eq=False, slots=True)
class Folder:
    """A folder: its direct files by kind, and the number of files of each kind in it and below.

    Attributes:
        stems: Names without suffix of the direct files, by kind (:data:`kubeyolo.data.layouts.names.KINDS`).
        below: Number of files by kind, including files in subfolders.
        children: Names of the folders in it.
    """

    stems: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    below: Counter[str] = field(default_factory=Counter)
    children: set[str] = field(default_factory=set)


class Tree:
    """The folders of a data set by their path relative to its root; the path of the root is ''."""

    def __init__(self, paths: Collection[str]) -> None:
        """Take the relative paths of all files; leftovers of systems and tools are dropped."""
        self.folders: dict[str, Folder] = {"": Folder()}
        self.files: dict[str, list[str]] = defaultdict(list)
        self._common: dict[str, str] = {}
        dropped: dict[str, bool] = {"": False}
        for path in paths:
            parent, _, name = path.rpartition("/")
            if parent not in dropped:
                dropped[parent] = any(map(is_leftover_folder, parent.split("/")))
            if dropped[parent] or is_leftover(name):
                continue
            stem, dot, suffix = name.rpartition(".")
            kind = KINDS.get(suffix.lower(), "other") if dot else "other"
            folder = self.folders.get(parent) or self._add(parent)
            folder.stems[kind].add(stem if dot else name)
            folder.below[kind] += 1
            if kind != "image":
                self.files[kind].append(path)
        for path in sorted(self.folders, key=lambda each: -each.count("/") if each else 1):
            if path:
                self.folders[path.rpartition("/")[0]].below.update(self.folders[path].below)

    def _add(self, path: str) -> Folder:
        folder = self.folders[path] = Folder()
        parent, _, name = path.rpartition("/")
        (self.folders.get(parent) or self._add(parent)).children.add(name)
        return folder

    def __contains__(self, folder: str) -> bool:
        return folder in self.folders

    def images(self, folder: str) -> int:
        """Return the number of images in a folder and its subfolders; 0 if there is no such folder."""
        node = self.folders.get(folder)
        return node.below["image"] if node else 0

    def has_images(self, folder: str) -> bool:
        """Tell whether images lie directly in a folder."""
        node = self.folders.get(folder)
        return node is not None and bool(node.stems.get("image"))

    def children(self, folder: str) -> list[str]:
        """Return the paths of the folders in a folder, sorted; an empty list if there is no such folder."""
        node = self.folders.get(folder)
        return [join(folder, name) for name in sorted(node.children)] if node else []

    def image_folder(self, parent: str) -> str | None:
        """Return the folder in ``parent`` that has images and a common name for image folders, or None."""
        named = {path.rpartition("/")[2].lower(): path for path in self.children(parent)}
        return next((named[name] for name in IMAGE_FOLDERS if name in named and self.images(named[name])), None)

    def common_image_folder(self, parent: str = "") -> str:
        """Return the deepest folder below ``parent`` that contains all images of ``parent``."""
        if parent not in self._common:
            folder, inside = parent, [""]
            while not self.has_images(folder) and len(inside) == 1:
                inside = [child for child in self.children(folder) if self.images(child)]
                folder = inside[0] if len(inside) == 1 else folder
            self._common[parent] = folder
        return self._common[parent]

    @cached_property
    def image_stems(self) -> frozenset[str]:
        """The names of all images without folder and suffix."""
        return frozenset().union(*(folder.stems.get("image", set()) for folder in self.folders.values()))


def join(folder: str, name: str) -> str:
    """Return the path of a file or folder in a folder; '' is the root."""
    return f"{folder}/{name}" if folder else name


def list_files(root: Path, most: int | None = None) -> list[str]:
    """Return the paths of all files below ``root``, relative to it and with '/', sorted; links are followed.

    Args:
        root: The folder.
        most: The largest number of files to list; None for all files.

    Raises:
        InputError: ``root`` is not a folder, or a folder in it cannot be read.
    """
    return sorted(islice(_walk(str(root), "", frozenset({os.path.realpath(root)})), most))


def data_files(root: Path) -> list[str]:
    """Return the files below ``root`` as :func:`list_files`, without leftovers of systems and tools."""
    return [path for path in list_files(root) if not is_leftover(path.rpartition("/")[2])]


def _walk(path: str, prefix: str, above: frozenset[str]) -> Iterator[str]:
    folders = []
    with read_errors(path), os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir():
                folders.append(entry)
            else:
                yield prefix + entry.name
    for entry in folders:
        if is_leftover_folder(entry.name):
            continue
        inside = above
        if entry.is_symlink():
            # A link to a folder above would be followed without end.
            real = os.path.realpath(entry.path)
            holds = {*above, os.path.realpath(path)}
            if any(each == real or each.startswith(real + os.sep) for each in holds):
                continue
            inside = above | {real}
        yield from _walk(entry.path, f"{prefix}{entry.name}/", inside)


def read_file(path: Path, most: int = CLASSES_SIZE) -> bytes:
    """Return the content of a file of at most ``most`` bytes.

    Raises:
        InputError: The file is not a regular file, is too large, or cannot be read.
    """
    with read_errors(path):
        return read_regular(path, most)


@contextmanager
def read_errors(path: Path | str) -> Iterator[None]:
    """Turn an ``OSError`` that reading ``path`` raises into an ``InputError``."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
