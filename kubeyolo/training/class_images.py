"""Where the images of a classification set lie: in a folder here, or in a store, from which they are fetched once."""

from __future__ import annotations

from pathlib import Path

from kubeyolo.data.folder import listing_digest
from kubeyolo.errors import InputError
from kubeyolo.storage.cache import cache_folder
from kubeyolo.storage.integrity import appearing_folder
from kubeyolo.storage.uri import open_store
from kubeyolo.training.crops import ClassFolder

_DIGITS = 16


def class_images(place: str, cache: Path | None = None) -> Path:
    """Return the folder of a classification set, after it was fetched when it lies in an object store.

    Raises:
        InputError: There is nothing, or the store cannot be used.
    """
    store = open_store(place)
    folder = store.local_path()
    if folder is not None:
        return folder
    objects = store.list()
    if not objects:
        raise InputError(f"{store.uri}: there is nothing there; give a place with a folder of images for each class")
    root = cache or cache_folder("classes")
    target = root / listing_digest(objects)[:_DIGITS]
    if target.is_dir():
        return target
    with appearing_folder(target) as part:
        store.get_tree("", part)
    return target


def class_fingerprint(place: str) -> str:
    """Return a digest that changes when the images of a classification set do.

    Of a folder it is taken over names and contents; of an object store over names, sizes and etags, so that nothing
    is downloaded.

    Raises:
        InputError: There is nothing, or it is no classification set.
    """
    store = open_store(place)
    folder = store.local_path()
    if folder is not None:
        return ClassFolder.open(folder).digest
    objects = store.list()
    if not objects:
        raise InputError(f"{store.uri}: there is nothing there; give a place with a folder of images for each class")
    return listing_digest(objects)
