"""A stored data set, which every step after validation reads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from kubeyolo.arrays import Pixels
from kubeyolo.data.decode import Levels, decode_image
from kubeyolo.data.headers import MOST_SIDE, ImageFault
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.manifest import (
    MANIFEST_NAME,
    READABLE_VERSIONS,
    SCHEMA_VERSION,
    DatasetManifest,
    SplitManifest,
    StoredFile,
)
from kubeyolo.documents import read_model
from kubeyolo.errors import InputError, first_problem, suggest
from kubeyolo.storage.base import NotFound
from kubeyolo.storage.cache import cache_folder
from kubeyolo.storage.file_errors import make_folder
from kubeyolo.storage.integrity import check_sha256, sha256_bytes, sha256_file
from kubeyolo.storage.place import Place, Stored
from kubeyolo.storage.workspace import work_folder

_REMEDY = "validate the data set again"


@dataclass(frozen=True)
class Dataset(Stored):
    """A stored data set: its manifest, and its splits, which are opened on demand.

    Attributes:
        manifest: Its ``dataset.json``.
        place: Its folder in a store, with the digest of its content.
        cache: Folder for copies of the shards of object stores.
    """

    manifest: DatasetManifest
    place: Place
    cache: Path

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; the position of a name is the class number."""
        return self.manifest.classes

    def split(self, name: str) -> Split:
        """Open a split; shards in an object store are downloaded once and compared with their checksums.

        Raises:
            InputError: There is no such split, or one of its files is missing or damaged.
        """
        index = self.index(name)
        with ThreadPoolExecutor(4, thread_name_prefix="kubeyolo-dataset") as pool:
            shards = tuple(pool.map(self._path, self.manifest.splits[name].shards))
        return Split(name, index, shards, self.manifest.levels)

    def index(self, name: str) -> SplitIndex:
        """Return the images and boxes of a split, without downloading shards.

        Raises:
            InputError: There is no such split, or its index is missing or damaged.
        """
        if name not in self.manifest.splits:
            raise InputError(f"{self.uri}: no split {name!r}{suggest(name, self.manifest.splits)}")
        split = self.manifest.splits[name]
        path = self._path(split.index)
        index = SplitIndex.load(path)
        _check_index(path, index, split, len(self.classes))
        return index

    def _path(self, file: StoredFile) -> Path:
        path = self.place.store.local_path(file.name)
        if path is not None:
            return _check_size(path, file)
        path = self.cache / file.name
        if not path.exists() or path.stat().st_size != file.size:
            with work_folder(self.cache) as work:
                part = work / "file"
                sha256 = self.place.store.get_file(file.name, part) or sha256_file(part)
                check_sha256(self.place.store.uri_of(file.name), file.sha256, sha256)
                make_folder(path.parent)
                os.replace(part, path)
        return path


class Split:
    """The images and boxes of one split; may be pickled, and read from several threads or processes."""

    def __init__(self, name: str, index: SplitIndex, shards: Sequence[Path], levels: Levels | None = None) -> None:
        self.name = name
        self.index = index
        self.shards = tuple(shards)
        self.levels = levels
        self._open: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.index)

    def with_index(self, index: SplitIndex) -> Split:
        """Return the same images with other boxes."""
        return Split(self.name, index, self.shards, self.levels)

    def read_bytes(self, i: int) -> bytes:
        """Return the file of image ``i``.

        Raises:
            InputError: The shard is missing or truncated.
        """
        assert self.index.shard is not None and self.index.offset is not None and self.index.length is not None
        shard, length = int(self.index.shard[i]), int(self.index.length[i])
        # pread moves no file position, so the descriptor may be shared with forked workers and threads.
        data = os.pread(self._descriptor(shard), length, int(self.index.offset[i]))
        if len(data) != length:
            raise InputError(f"{self.shards[shard]}: ends before {self.index.file_name[i]!r} is complete; {_REMEDY}")
        return data

    def read_image(self, i: int) -> Pixels:
        """Return image ``i`` (H, W, 3) RGB, rotated as its annotations require.

        Raises:
            InputError: The shard is damaged: at the offset in the index there is no image of the annotated size.
        """
        try:
            size = int(self.index.width[i]), int(self.index.height[i])
            return decode_image(self.read_bytes(i), self.index.orientation_of(i), self.levels, size)
        except ImageFault as error:
            raise self._damaged(i) from error

    def _damaged(self, i: int) -> InputError:
        assert self.index.shard is not None
        path, name = self.shards[int(self.index.shard[i])], self.index.file_name[i]
        return InputError(f"{path}: damaged, {name!r} cannot be decoded from it; {_REMEDY}")

    def close(self) -> None:
        """Close the shards; they are opened again when needed."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _descriptor(self, shard: int) -> int:
        descriptor = self._open.get(shard)
        if descriptor is None:
            try:
                opened = os.open(self.shards[shard], os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise InputError(f"{self.shards[shard]}: cannot be read ({error.strerror}); {_REMEDY}") from error
            descriptor = self._open.setdefault(shard, opened)
            if descriptor != opened:  # another thread was first
                os.close(opened)
        return descriptor

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            self.close()


def open_dataset(place: Place, cache: Path | None = None) -> Dataset:
    """Open a stored data set; only its manifest is read.

    Args:
        place: Its folder, as :func:`kubeyolo.data.shards.write_dataset` returns it. If it has a digest, the content
            must have the same digest.
        cache: Folder for copies of the shards of object stores, by default ``~/.cache/kubeyolo/datasets``.

    Raises:
        InputError: There is no data set, its manifest is damaged or has an unsupported version, or its content does not
            have the digest of the reference.
    """
    where = place.store.uri_of(MANIFEST_NAME)
    try:
        data = place.store.read_bytes(MANIFEST_NAME)
    except NotFound:
        raise InputError(
            f"{place}: no data set there ({MANIFEST_NAME} is missing); give the URI of a validated data set"
        ) from None
    try:
        manifest = read_model(data, DatasetManifest, where, _REMEDY)
    except ValidationError as error:
        raise InputError(f"{where}: not a data set manifest ({first_problem(error)}); {_REMEDY}") from error
    if manifest.schema_version not in READABLE_VERSIONS:
        version = manifest.schema_version
        raise InputError(
            f"{where}: schema version {version}, but this program reads version {SCHEMA_VERSION}; {_REMEDY}"
        )
    place.check_digest(manifest.digest)
    root = cache if cache is not None else cache_folder("datasets")
    # Two manifests with the same digest may have different shards.
    return Dataset(manifest, place.pinned(manifest.digest), root / f"{manifest.name}-{sha256_bytes(data)[:16]}")


def _check_size(path: Path, file: StoredFile) -> Path:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: missing from the data set ({error.strerror}); {_REMEDY}") from error
    if size != file.size:
        raise InputError(f"{path}: damaged, it has {size} bytes instead of {file.size}; {_REMEDY}")
    return path


def _check_index(path: Path, index: SplitIndex, split: SplitManifest, classes: int) -> None:
    """Refuse an index that does not fit its manifest; otherwise reading outside a shard would fail during training."""
    if index.shard is None or index.offset is None or index.length is None:
        raise InputError(f"{path}: does not have the positions of the images in the shards; {_REMEDY}")
    fault = _fault_of_index(index, split, classes)
    if fault:
        raise InputError(f"{path}: does not fit its {MANIFEST_NAME}: {fault}; {_REMEDY}")


def _fault_of_index(index: SplitIndex, split: SplitManifest, classes: int) -> str:
    assert index.shard is not None and index.offset is not None and index.length is not None
    if (len(index), index.boxes) != (split.images, split.boxes):
        return f"{len(index)} images with {index.boxes} boxes instead of {split.images} with {split.boxes}"
    if ((index.box_class < 0) | (index.box_class >= classes)).any():
        return f"a box has a class outside of 0 to {classes - 1}"
    if not np.isfinite(index.box_xywh).all() or not np.isfinite(index.box_area).all():
        return "a box has coordinates or an area that are infinite or NaN"
    if (index.box_xywh[:, 2:] < 0).any():
        return "a box has a negative size"
    sides = np.stack([index.width, index.height])
    if (sides < 1).any() or (sides > MOST_SIDE).any():
        return f"an image has a side of less than 1 or more than {MOST_SIDE} pixels"
    sizes = np.array([file.size for file in split.shards], np.int64)
    if ((index.shard < 0) | (index.shard >= len(sizes))).any():
        return f"an image is in a shard outside of 0 to {len(sizes) - 1}"
    # Written so that no sum overflows.
    ends = sizes[index.shard]
    if ((index.length < 1) | (index.offset < 0) | (index.offset > ends) | (index.length > ends - index.offset)).any():
        return "an image is outside of its shard"
    return ""
