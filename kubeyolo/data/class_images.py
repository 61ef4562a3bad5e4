"""A classification set: a folder of images for each class, on this machine or in an object store."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from kubeyolo.arrays import Pixels
from kubeyolo.config.schema import PretrainConfig
from kubeyolo.data.crops import Crops, square_crop, stored_side
from kubeyolo.data.decode import decode_file
from kubeyolo.data.folder import listing_digest
from kubeyolo.data.headers import ImageFault
from kubeyolo.errors import InputError
from kubeyolo.file_kinds import IMAGE_SUFFIXES
from kubeyolo.storage.base import Store
from kubeyolo.storage.cache import cache_folder
from kubeyolo.storage.file_errors import file_errors
from kubeyolo.storage.integrity import appearing_folder, sha256_file
from kubeyolo.storage.place import Place

HELD_OUT = 8
"""Every eighth image is held out for validation."""

_DIGITS = 16


@dataclass(frozen=True)
class ClassFolder:
    """A folder with one folder of images for each class."""

    classes: tuple[str, ...]
    files: tuple[tuple[Path, ...], ...]
    digest: str

    @classmethod
    def open(cls, folder: Path) -> ClassFolder:
        """List the images of each class by suffix, without hidden files. The digest covers names and contents.

        Raises:
            InputError: There is no such folder, there are no classes, or a class has too few images.
        """
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; give a folder that has a folder of images for each class")
        classes = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."))
        if len(classes) < 2:
            raise InputError(f"{folder}: pretraining needs a folder of images for each of at least 2 classes")
        files = tuple(tuple(sorted(path for path in (folder / name).iterdir() if _is_image(path))) for name in classes)
        for name, paths in zip(classes, files, strict=True):
            if len(paths) < 2:
                raise InputError(f"{folder / name}: a class needs at least 2 images, {name!r} has {len(paths)}")
        digest = hashlib.sha256()
        for path in chain(*files):
            with file_errors(path):
                content = sha256_file(path)
            digest.update(f"{path.relative_to(folder)}\0{content}\n".encode(errors="surrogateescape"))
        return cls(classes, files, digest.hexdigest())

    def crops(self, config: PretrainConfig, held_out: bool, limit: int) -> Crops:
        """Read the images for training, or the held-out images, each as one square.

        Raises:
            InputError: A file is not an image.
        """
        chosen: list[tuple[Path, int]] = []
        for label, paths in enumerate(self.files):
            held = set(range(0, len(paths), HELD_OUT))
            chosen += [(path, label) for i, path in enumerate(paths) if (i in held) == held_out]
        if len(chosen) > limit:
            chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, limit).astype(int)]
        side = stored_side(config.image_size)

        def read(path: Path) -> Pixels:
            try:
                image = decode_file(path.read_bytes()).pixels
            except ImageFault as fault:
                raise InputError(f"{path} {fault}; remove or replace it") from fault
            height, width = image.shape[:2]
            return square_crop(image, np.array([0, 0, width, height], np.float64), 1.0, side)

        with ThreadPoolExecutor(2) as pool:
            images = list(pool.map(read, [path for path, _ in chosen]))
        return Crops(np.stack(images), np.array([label for _, label in chosen], np.int32))


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
        InputError: There are no files, or the folder is not a classification set.
    """
    store = place.store
    folder = store.local_path()
    return _stored_digest(store) if folder is None else ClassFolder.open(folder).digest


def _stored_digest(store: Store) -> str:
    objects = store.list()
    if not objects:
        raise InputError(
            f"{store.uri}: there are no files; give the URI of a folder that has a folder of images for each class"
        )
    return listing_digest(objects)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
