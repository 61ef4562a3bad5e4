"""The layout of a data set as it comes in: a folder, or the same under a prefix of an object store.

``annotations/<split>.json`` (or COCO's ``annotations/instances_<split>.json``) beside ``<split>/`` with the images.
The splits ``train`` and ``val`` are required; COCO's ``train2017`` and ``val2017`` are taken for them.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from kubeyolo.data.coco import read_coco
from kubeyolo.data.index import SplitIndex
from kubeyolo.errors import InputError
from kubeyolo.storage.base import PART_SUFFIX, Listing, Store
from kubeyolo.storage.cache import cache_folder
from kubeyolo.storage.integrity import sha256_bytes
from kubeyolo.storage.location import FileLocation, parse
from kubeyolo.storage.uri import open_store

REQUIRED_SPLITS = ("train", "val")
_LAYOUT = "expected annotations/<split>.json beside <split>/ with images, for train and val"
_YEAR = re.compile(r"(train|val|test)\d{4}")


@dataclass(frozen=True)
class SplitFiles:
    """Annotation file and image folder of one split, relative to the root of the data set."""

    annotations: str
    images: str


@dataclass(frozen=True)
class DataFolder:
    """A data set laid out in a folder of this machine."""

    name: str
    source: str
    root: Path
    splits: dict[str, SplitFiles]

    def annotations(self, split: str) -> Path:
        """Return the annotation file of a split."""
        return self.root / self.splits[split].annotations

    def images(self, split: str) -> Path:
        """Return the image folder of a split."""
        return self.root / self.splits[split].images


@dataclass(frozen=True)
class Annotations:
    """The checked annotations of all splits; classes are ordered by category id."""

    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    splits: dict[str, SplitIndex]


def open_source(source: str | Path, cache: Path | None = None) -> DataFolder:
    """Find the splits of a data set; one in an object store is downloaded to ``cache`` first, once for each state.

    Raises:
        InputError: The folder or a split is missing, or two files claim the same split.
    """
    uri = str(source)
    store = open_store(uri)
    local = store.local_path()
    if local is None:
        local = _download(store, cache if cache is not None else cache_folder("sources"))
    return DataFolder(dataset_name(uri), uri, local, local_splits(local))


def dataset_name(uri: str) -> str:
    """Return the name of a data set: the last part of its URI, in lower-case letters, digits and '-'."""
    location = parse(uri)
    if isinstance(location, FileLocation):
        last = location.path.resolve().name
    else:
        last = location.prefix.rpartition("/")[2] or location.bucket
    return re.sub(r"[^a-z0-9]+", "-", last.lower())[:40].strip("-") or "dataset"


def local_splits(root: Path) -> dict[str, SplitFiles]:
    """Return the splits of the data set in the folder ``root``."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; {_LAYOUT}")
    annotations = root / "annotations"
    names = [path.name for path in annotations.iterdir()] if annotations.is_dir() else []
    folders = {path.name for path in root.iterdir() if path.is_dir()}
    return pair_splits(names, folders, str(root))


def split_names(source: str) -> tuple[str, ...]:
    """Return the names of the splits of a data set, wherever it lies; nothing of it is downloaded.

    Raises:
        InputError: The data set or a required split is missing.
    """
    store = open_store(source)
    local = store.local_path()
    return tuple(local_splits(local) if local is not None else stored_splits(store, store.list()))


def stored_splits(store: Store, objects: Listing) -> dict[str, SplitFiles]:
    """Return the splits of the data set in an object store, from its listing."""
    if not objects:
        raise InputError(f"{store.uri}: there is nothing there; {_LAYOUT}")
    parts = [stored.key.split("/") for stored in objects]
    names = [part[1] for part in parts if len(part) == 2 and part[0] == "annotations"]
    return pair_splits(names, {part[0] for part in parts if len(part) > 1}, store.uri)


def pair_splits(annotation_names: Iterable[str], folders: Collection[str], where: str) -> dict[str, SplitFiles]:
    """Pair annotation files with image folders; files of other kinds (captions, keypoints) are left aside.

    Raises:
        InputError: A required split has no annotations or no image folder, or two files claim the same split.
    """
    splits: dict[str, SplitFiles] = {}
    for name in sorted(annotation_names):
        if not name.endswith(".json"):
            continue
        folder = name.removesuffix(".json").removeprefix("instances_")
        match = _YEAR.fullmatch(folder)
        split = match[1] if match else folder
        if folder not in folders:
            if split in REQUIRED_SPLITS:
                raise InputError(f"{where}: annotations/{name} has no image folder {folder}/ beside it; {_LAYOUT}")
            continue
        if split in splits:
            other = splits[split].annotations
            raise InputError(f"{where}: {other} and annotations/{name} are both split {split!r}; remove one of them")
        splits[split] = SplitFiles(f"annotations/{name}", folder)
    for split in REQUIRED_SPLITS:
        if split not in splits:
            found = f" (found: {', '.join(splits)})" if splits else ""
            raise InputError(f"{where}: no annotations/{split}.json{found}; {_LAYOUT}")
    return splits


def read_annotations(folder: DataFolder) -> Annotations:
    """Read and check the annotations of all splits.

    Raises:
        InputError: An annotation file is wrong, the splits have other classes, or a required split has no boxes.
    """
    splits: dict[str, SplitIndex] = {}
    classes: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()
    first = ""
    for split in sorted(folder.splits):
        path = folder.annotations(split)
        splits[split], names, ids = read_coco(path, folder.images(split))
        if first and (names, ids) != (classes, category_ids):
            there, here = set(zip(category_ids, classes, strict=True)), set(zip(ids, names, strict=True))
            number, name = min(there ^ here)
            side = first if (number, name) in there else path.name
            raise InputError(
                f"{path}: its categories differ from those of {first}: {number} {name!r} is in {side} alone; "
                "list the same categories in every split"
            )
        classes, category_ids, first = names, ids, path.name
        if split in REQUIRED_SPLITS and splits[split].box_crowd.all():
            raise InputError(f"{path}: split {split!r} has no boxes (crowds left aside); annotate some objects")
    return Annotations(classes, category_ids, splits)


def listing_digest(objects: Listing) -> str:
    """Return the sha256 of names, sizes and etags of stored objects."""
    lines = [f"{stored.key}\0{stored.size}\0{stored.etag}\n" for stored in objects]
    return sha256_bytes("".join(lines).encode())


def source_objects(objects: Listing, splits: dict[str, SplitFiles]) -> Listing:
    """Return those objects that belong to the splits."""
    files = {split.annotations for split in splits.values()}
    folders = {split.images for split in splits.values()}
    return [stored for stored in objects if stored.key in files or stored.key.split("/", 1)[0] in folders]


def _download(store: Store, cache: Path) -> Path:
    """Return a folder with the splits of a stored data set, whole or not at all."""
    objects = store.list()
    splits = stored_splits(store, objects)
    target = cache / listing_digest(source_objects(objects, splits))[:16]
    if target.is_dir():
        return target
    part = cache / f".{uuid.uuid4().hex}{PART_SUFFIX}"
    try:
        for split in splits.values():
            store.get_tree(split.images, part / split.images)
            store.get_file(split.annotations, part / split.annotations)
        try:
            os.replace(part, target)
        except OSError:
            if not target.is_dir():  # another process may have been first
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target
