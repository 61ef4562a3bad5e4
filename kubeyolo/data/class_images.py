"""A classification set: a folder of images for each class, on this machine or in an object store."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kubeyolo.data.class_layout import ClassLayout, class_layout
from kubeyolo.data.folder import listing_digest
from kubeyolo.errors import InputError
from kubeyolo.storage.base import Listing, Store
from kubeyolo.storage.cache import cache_folder
from kubeyolo.storage.file_errors import file_errors
from kubeyolo.storage.integrity import appearing_folder, sha256_file
from kubeyolo.storage.place import Place

_EXPECTED = "give a folder of images with one folder for each class, or its URI"
_DIGITS = 16
_DEPTH = 2
"""Folders of images are at most this deep: ``train/<class>``."""


@dataclass(frozen=True)
class ClassFolder:
    """A classification set in a folder of this machine.

    Attributes:
        root: The folder.
        layout: Its classes and image files.
        digest: Digest of the names and contents of the image files.
    """

    root: Path
    layout: ClassLayout
    digest: str

    @classmethod
    def open(cls, folder: Path) -> ClassFolder:
        """List the images of each class by suffix, without hidden files, and read their contents for the digest.

        Raises:
            InputError: There is no such folder, or its layout is not that of a classification set.
        """
        check_folder(folder)
        layout = class_layout(_paths(folder), str(folder))
        digest = hashlib.sha256()
        for path in layout.files:
            with file_errors(folder / path):
                content = sha256_file(folder / path)
            digest.update(f"{path}\0{content}\n".encode(errors="surrogateescape"))
        return cls(folder, layout, digest.hexdigest())


def check_folder(folder: Path) -> None:
    """Refuse a folder of this machine that does not exist.

    Raises:
        InputError: There is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"pretrain.data = {folder}: no such folder; {_EXPECTED}")


def class_images(place: Place, cache: Path | None = None) -> Path:
    """Return the folder of a classification set; a set in an object store is downloaded again only if it has changed.

    Raises:
        InputError: There are no files, or the store cannot be used.
    """
    store = place.store
    folder = store.local_path()
    if folder is not None:
        return folder
    target = (cache or cache_folder("classes")) / _stored_digest(store)[:_DIGITS]
    if not target.is_dir():
        with appearing_folder(target) as part:
            store.get_tree("", part)
    return target


def class_fingerprint(place: Place) -> str:
    """Return a digest that changes when the images of a classification set change.

    For a folder it covers names and contents; for an object store names, sizes and etags, so nothing is downloaded.

    Raises:
        InputError: There are no files, or their layout is not that of a classification set.
    """
    store = place.store
    folder = store.local_path()
    if folder is not None:
        return ClassFolder.open(folder).digest
    objects = _listed(store)
    class_layout((stored.key for stored in objects), store.uri)
    return listing_digest(objects)


def _stored_digest(store: Store) -> str:
    return listing_digest(_listed(store))


def _listed(store: Store) -> Listing:
    objects = store.list()
    if not objects:
        raise InputError(f"pretrain.data = {store.uri}: there are no files; {_EXPECTED}")
    return objects


def _paths(folder: Path, prefix: str = "") -> Iterator[str]:
    """Yield the files of a folder, and its folders with "/" at their end, as paths relative to the root of the set."""
    with file_errors(folder), os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(), entry.is_file()) for entry in entries if entry.name[0] != "."]
    for name, is_folder, is_file in found:
        path = f"{prefix}{name}"
        if is_file:
            yield path
        elif is_folder:
            yield f"{path}/"
            if path.count("/") < _DEPTH:
                yield from _paths(folder / name, f"{path}/")
