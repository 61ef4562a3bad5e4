"""The files of a data set as a tree of folders, without looking into any of them."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

from kubeyolo.data.layouts.names import IMAGE_FOLDERS, KINDS, is_leftover, is_leftover_folder
from kubeyolo.errors import InputError


@dataclass(eq=False, slots=True)
class Folder:
    """A folder: its direct files by kind, and how many there are of each kind in it and below.

    Attributes:
        stems: Names without suffix of the direct files, by kind (:data:`kubeyolo.data.layouts.names.KINDS`).
        below: Number of files by kind, those of folders below included.
        children: Names of the folders in it.
    """

    stems: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    below: Counter[str] = field(default_factory=Counter)
    children: set[str] = field(default_factory=set)


class Tree:
    """The folders of a data set by their path relative to its root, which is ''."""

    def __init__(self, paths: Collection[str]) -> None:
        """Take the relative paths of all files; leftovers of machines and tools are dropped."""
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
        """Return the number of images in a folder and below it; 0 where there is no such folder."""
        found = self.folders.get(folder)
        return found.below["image"] if found else 0

    def has_images(self, folder: str) -> bool:
        """Tell whether images lie in a folder itself."""
        found = self.folders.get(folder)
        return found is not None and bool(found.stems.get("image"))

    def children(self, folder: str) -> list[str]:
        """Return the paths of the folders in a folder, sorted; none where there is no such folder."""
        found = self.folders.get(folder)
        return [join(folder, name) for name in sorted(found.children)] if found else []

    def image_folder(self, parent: str) -> str | None:
        """Return the folder in ``parent`` that is named as folders of images are, the usual names first."""
        named = {path.rpartition("/")[2].lower(): path for path in self.children(parent)}
        return next((named[name] for name in IMAGE_FOLDERS if name in named and self.images(named[name])), None)

    def common_image_folder(self, parent: str = "") -> str:
        """Return the deepest folder below ``parent`` that holds all images below it."""
        if parent not in self._common:
            self._common[parent] = self._find_common(parent)
        return self._common[parent]

    def _find_common(self, parent: str) -> str:
        while not self.has_images(parent):
            inside = [child for child in self.children(parent) if self.images(child)]
            if len(inside) != 1:
                break
            parent = inside[0]
        return parent

    @cached_property
    def image_stems(self) -> frozenset[str]:
        """The names of all images without folder and suffix."""
        return frozenset().union(*(folder.stems.get("image", set()) for folder in self.folders.values()))


def join(folder: str, name: str) -> str:
    """Return the path of a file or folder in a folder, of which '' is the root."""
    return f"{folder}/{name}" if folder else name


def list_files(root: Path, most: int | None = None) -> list[str]:
    """Return the paths of all files below ``root``, relative to it and with '/', sorted; links are followed.

    Args:
        root: The folder.
        most: After so many files the others are left out.

    Raises:
        InputError: ``root`` is not a folder, or a folder in it cannot be read.
    """
    return sorted(islice(_walk(str(root), "", frozenset({os.path.realpath(root)})), most))


def data_files(root: Path) -> list[str]:
    """Return the files below ``root`` as :func:`list_files`, without what machines and tools leave."""
    return [path for path in list_files(root) if not is_leftover(path.rpartition("/")[2])]


def _walk(path: str, prefix: str, above: frozenset[str]) -> Iterator[str]:
    try:
        with os.scandir(path) as entries:
            folders = []
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry)
                else:
                    yield prefix + entry.name
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    for entry in folders:
        if is_leftover_folder(entry.name):
            continue
        inside = above
        if entry.is_symlink():
            # A link to a folder above would be followed without end.
            real = os.path.realpath(entry.path)
            if any(each == real or each.startswith(real + os.sep) for each in above):
                continue
            inside = above | {real}
        yield from _walk(entry.path, f"{prefix}{entry.name}/", inside)


def read_file(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
