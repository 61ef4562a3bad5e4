"""Identifies a data set: by the digest of its content, and by the fingerprint of its source.

The digest depends on images and annotations, not on where they are stored or how the JSON is formatted. The fingerprint
is cheaper to compute and changes whenever a file changes; it is a parameter of a step, so that a cached result of the
step is used only for unchanged data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from kubeyolo.config.training_schema import DataConfig
from kubeyolo.data.folder import belongs_to, listing_digest, open_data, stored_layout
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.layout import local_layout
from kubeyolo.data.layouts.names import is_image_name
from kubeyolo.data.layouts.tree import list_files, read_errors
from kubeyolo.data.layouts.types import SINGLE, Layout
from kubeyolo.errors import InputError
from kubeyolo.resources import usable_processors
from kubeyolo.storage.checksums import remembered
from kubeyolo.storage.integrity import sha256_file

_FORMAT = b"kubeyolo data set 1\n"
_COLUMNS = ("image_id", "width", "height", "box_start", "box_id", "box_class", "box_xywh", "box_area", "box_crowd")


def content_digest(
    classes: Sequence[str],
    category_ids: Sequence[int],
    splits: Mapping[str, tuple[SplitIndex, Sequence[str]]],
    levels: tuple[float, float] | None = None,
) -> str:
    """Return the sha256 of a data set.

    Orientations, levels and kept keys of images are included only if they are set.

    Args:
        classes: Class names in the order of their category ids.
        category_ids: The category ids, ascending.
        splits: For each split its index and the sha256 of each image file (I,).
        levels: The values that become 0 and 255, for samples of more than 8 bits; None for the whole range.
    """
    digest = hashlib.sha256(_FORMAT)

    def add(label: str, data: bytes) -> None:
        digest.update(f"{label} {len(data)}\n".encode())
        digest.update(data)

    def column(label: str, array: NDArray[np.generic]) -> None:
        kind = "<f8" if array.dtype.kind == "f" else "<i8"
        add(label, np.ascontiguousarray(array.astype(kind)).tobytes())

    add("classes", orjson.dumps(list(classes)))
    add("category_ids", orjson.dumps(list(category_ids)))
    # Default values are not added, so that digests of data sets with default values do not change.
    if levels is not None:
        add("levels", orjson.dumps(list(levels)))
    for name in sorted(splits):
        index, image_digests = splits[name]
        add("split", name.encode())
        add("files", orjson.dumps(list(zip(index.file_name, image_digests, strict=True))))
        for label in _COLUMNS:
            column(label, getattr(index, label))
        if index.orientation is not None and (index.orientation != 1).any():
            column("orientation", index.orientation)
        if index.image_key is not None:
            add("image_key", orjson.dumps(index.image_key))
        if index.image_facts is not None:
            add("image_facts", orjson.dumps(index.image_facts))
    return digest.hexdigest()


@dataclass(frozen=True)
class SourceFacts:
    """The fingerprint and the sizes of a data set that is not validated yet.

    Attributes:
        fingerprint: A sha256 that changes when any annotation or image file changes.
        images: Number of files in the image folder, by split.
        size: Size of images and annotations in bytes.
        is_listed: Whether the files were only listed, not read, because an object store has its own checksums.
    """

    fingerprint: str
    images: Mapping[str, int]
    size: int
    is_listed: bool


def source_facts(source: str | Path, data: DataConfig | None = None) -> SourceFacts:
    """Return the fingerprint and the sizes of a data set that is not validated yet.

    The fingerprint of a folder covers names and contents, but not the folder's path, and is stored until a file in the
    folder is written; for an object store it covers names, sizes and etags, so nothing is downloaded.

    Args:
        source: Folder or URI.
        data: Its format, and the share of val if the data set must be divided; if None, the schema's defaults are used.

    Raises:
        InputError: There is no data set, or it is incomplete or ambiguous.
    """
    data = data or DataConfig()
    store = open_data(str(source), data.format)
    root = store.local_path()
    if root is not None:
        return _folder_facts(root, local_layout(root, data.format), data.split)
    objects = store.list()
    layout = stored_layout(store, objects, data.format)
    belongs = belongs_to(layout)
    ours = [stored for stored in objects if belongs(stored.key)]
    images = _count_images(layout, [stored.key for stored in ours], data.split)
    return SourceFacts(listing_digest(ours), images, sum(stored.size for stored in ours), is_listed=True)


def image_counts(source: str | Path, data: DataConfig | None = None) -> dict[str, int]:
    """Return the approximate number of images of a data set that is not validated yet, by split; no file is read.

    Args:
        source: Folder or URI.
        data: As for :func:`source_facts`.

    Raises:
        InputError: There is no data set, or it is incomplete or ambiguous.
    """
    data = data or DataConfig()
    store = open_data(str(source), data.format)
    root = store.local_path()
    if root is not None:
        layout = local_layout(root, data.format)
        names = list_files(root)
    else:
        objects = store.list()
        names, layout = [stored.key for stored in objects], stored_layout(store, objects, data.format)
    return _count_images(layout, list(filter(belongs_to(layout), names)), data.split)


def _folder_facts(root: Path, layout: Layout, share: float) -> SourceFacts:
    names = [name for name in sorted(filter(belongs_to(layout), list_files(root))) if _is_file(root / name)]
    facts = [(name, (root / name).stat()) for name in names]
    return SourceFacts(
        remembered(f"data set {root.absolute()}", facts, lambda: _contents_digest(root, names)),
        _count_images(layout, names, share),
        sum(each.st_size for _, each in facts),
        is_listed=False,
    )


def _is_file(path: Path) -> bool:
    """Tell whether a path is a file; a broken link that annotations name is reported later as a missing image.

    Raises:
        InputError: The path is a pipe, a socket or a device: reading it may never end.
    """
    if path.is_file():
        return True
    if path.exists():
        raise InputError(f"{path}: not a regular file; remove it from the data set")
    return False


def _count_images(layout: Layout, names: Sequence[str], share: float) -> dict[str, int]:
    """Return the approximate number of images of each split; splits with the same folder are assumed equally large."""
    images = [name for name in names if is_image_name(name)]
    folders = [files.images for files in layout.splits.values()]
    counts = {
        split: sum(1 for name in images if not files.images or name.startswith(f"{files.images}/"))
        // folders.count(files.images)
        for split, files in layout.splits.items()
    }
    if not layout.is_single:
        return counts
    held_out = round(counts[SINGLE] * share)
    return {"train": counts[SINGLE] - held_out, "val": held_out}


def _contents_digest(root: Path, names: Sequence[str]) -> str:
    with ThreadPoolExecutor(min(8, usable_processors())) as pool:
        digests = pool.map(lambda name: _file_digest(root / name), names)
        lines = [f"{name}\0{value}\n" for name, value in zip(names, digests, strict=True)]
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def _file_digest(path: Path) -> str:
    with read_errors(path):
        return sha256_file(path)
