"""What identifies a data set: the digest of its content, and the fingerprint of its source.

The digest knows images and annotations, not where they are stored nor how the JSON is written. The fingerprint is
cheaper to get and changes whenever a file does; it is the parameter that makes the cache of a step right.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from kubeyolo.data.folder import SplitFiles, listing_digest, local_splits, source_objects, stored_splits
from kubeyolo.data.index import SplitIndex
from kubeyolo.errors import InputError
from kubeyolo.storage.checksums import remembered
from kubeyolo.storage.integrity import sha256_file
from kubeyolo.storage.uri import open_store

_FORMAT = b"kubeyolo data set 1\n"


def content_digest(
    classes: Sequence[str],
    category_ids: Sequence[int],
    splits: Mapping[str, tuple[SplitIndex, Sequence[str]]],
) -> str:
    """Return the sha256 of a data set.

    Args:
        classes: Class names by category id.
        category_ids: Their ids, ascending.
        splits: For each split its index and the sha256 of each image file (I,).
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
    for name in sorted(splits):
        index, image_digests = splits[name]
        add("split", name.encode())
        add("files", orjson.dumps(list(zip(index.file_name, image_digests, strict=True))))
        column("image_id", index.image_id)
        column("width", index.width)
        column("height", index.height)
        column("box_start", index.box_start)
        column("box_id", index.box_id)
        column("box_class", index.box_class)
        column("box_xywh", index.box_xywh)
        column("box_area", index.box_area)
        column("box_crowd", index.box_crowd)
    return digest.hexdigest()


@dataclass(frozen=True)
class SourceFacts:
    """What is known of a data set before it is validated.

    Attributes:
        fingerprint: A sha256 that changes when any annotation or image file does.
        images: Files in the image folder, by split.
        size: Bytes of all of them and of the annotations.
        is_listed: Whether it was listed, not read: an object store has checksums of its own.
    """

    fingerprint: str
    images: Mapping[str, int]
    size: int
    is_listed: bool


def fingerprint(source: str | Path) -> str:
    """Return the fingerprint of a data set; see :func:`source_facts`."""
    return source_facts(source).fingerprint


def source_facts(source: str | Path) -> SourceFacts:
    """Look at a data set as it comes in.

    The fingerprint of a folder is taken over names and contents, wherever the folder lies, and remembered while none of
    its files is written; that of an object store over names, sizes and etags, so that nothing is downloaded.

    Raises:
        InputError: The source or one of its splits is missing.
    """
    store = open_store(str(source))
    root = store.local_path()
    if root is not None:
        return _folder_facts(root, local_splits(root))
    objects = store.list()
    splits = stored_splits(store, objects)
    ours = source_objects(objects, splits)
    folders = [stored.key.split("/", 1)[0] for stored in ours]
    images = {name: folders.count(split.images) for name, split in splits.items()}
    return SourceFacts(listing_digest(ours), images, sum(stored.size for stored in ours), is_listed=True)


def _folder_facts(root: Path, splits: dict[str, SplitFiles]) -> SourceFacts:
    names = sorted({split.annotations for split in splits.values()})
    count = {}
    for folder in sorted({split.images for split in splits.values()}):
        before = len(names)
        for parent, folders, files in os.walk(root / folder):
            folders.sort()
            names += sorted(Path(parent, name).relative_to(root).as_posix() for name in files)
        count[folder] = len(names) - before
    facts = [(name, _file_facts(root / name)) for name in names]
    return SourceFacts(
        remembered(f"data set {root.absolute()}", facts, lambda: _contents_digest(root, names)),
        {name: count[split.images] for name, split in splits.items()},
        sum(each.st_size for _, each in facts),
        is_listed=False,
    )


def _contents_digest(root: Path, names: Sequence[str]) -> str:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        digests = pool.map(lambda name: _file_digest(root / name), names)
        lines = [f"{name}\0{value}\n" for name, value in zip(names, digests, strict=True)]
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def _file_facts(path: Path) -> os.stat_result:
    if not path.is_file():
        raise InputError(f"{path}: not a regular file, or a link that leads nowhere; remove it from the data set")
    return path.stat()


def _file_digest(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from error
