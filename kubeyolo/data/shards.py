"""A checked data set into storage: images in tar shards, boxes in one index for each split, the manifest last."""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path

from pydantic import ValidationError

from kubeyolo.data.checks import OnProgress, read_images
from kubeyolo.data.digest import content_digest
from kubeyolo.data.folder import DataFolder, open_source, read_annotations
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.manifest import MANIFEST_NAME, DatasetManifest, SplitManifest, StoredFile
from kubeyolo.storage.base import NotFound, Store
from kubeyolo.storage.cache import cache_folder
from kubeyolo.storage.integrity import sha256_file, sync_folder
from kubeyolo.storage.uri import open_store
from kubeyolo.storage.workspace import work_folder

SHARD_BYTES = 256_000_000
"""Largest size of a shard, unless one image is larger."""

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)


def write_dataset(
    source: str | Path,
    store_uri: str,
    cache: Path | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: OnProgress | None = None,
) -> tuple[DatasetManifest, str]:
    """Check a data set and store it under ``datasets/<name>-<digest>/``.

    Every image is read once. A data set that is already stored whole is left as it is.

    Args:
        source: Folder or URI in the layout of :mod:`kubeyolo.data.folder`.
        store_uri: The store to write to.
        cache: Where a source in an object store is downloaded to.
        shard_bytes: Largest size of a shard.
        progress: Told how many images are checked; without it a bar is shown.

    Returns:
        The manifest and the URI of the folder it lies in.

    Raises:
        InputError: Annotations or images are wrong; then nothing is stored.
    """
    store = open_store(store_uri)
    folder = open_source(source, cache)
    annotations = read_annotations(folder)
    # In the store where that is a folder, so that publishing is a change of name.
    with work_folder(store.local_path("datasets") or cache_folder("work")) as work:
        splits: dict[str, SplitManifest] = {}
        contents: dict[str, tuple[SplitIndex, list[str]]] = {}
        for split, index in annotations.splits.items():
            splits[split], digests = _write_split(work, folder, split, index, shard_bytes, progress)
            contents[split] = (index, digests)
        manifest = DatasetManifest(
            name=folder.name,
            source=folder.source,
            digest=content_digest(annotations.classes, annotations.category_ids, contents),
            classes=annotations.classes,
            category_ids=annotations.category_ids,
            splits=splits,
        )
        (work / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=1))
        return _publish(store, work, manifest)


class ShardWriter:
    """Writes files into numbered, uncompressed tar archives that hold no time, owner or other accident."""

    def __init__(self, folder: Path, split: str, limit: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._split = split
        self._limit = limit
        self._path: Path | None = None
        self._size = 0
        self._digest = hashlib.sha256()
        self.files: list[StoredFile] = []

    def add(self, name: str, data: bytes) -> tuple[int, int]:
        """Append a file; return the number of its shard and the offset in bytes of its content there."""
        header = self._header(name, len(data))
        padding = bytes(-len(data) % _BLOCK)
        if self._path and self._size + len(header) + len(data) + len(padding) + len(_END) > self._limit:
            self.close()
        if self._path is None:
            self._path = self._folder / f"{self._split}-{len(self.files):05d}.tar"
            self._file = self._path.open("wb")
        self._write(header)
        offset = self._size
        self._write(data)
        self._write(padding)
        return len(self.files), offset

    def close(self) -> None:
        """End the open shard, if there is one."""
        if self._path is None:
            return
        self._write(_END)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self.files.append(StoredFile(name=self._path.name, size=self._size, sha256=self._digest.hexdigest()))
        self._path, self._size, self._digest = None, 0, hashlib.sha256()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)

    @staticmethod
    def _header(name: str, size: int) -> bytes:
        info = tarfile.TarInfo(name)
        info.size = size
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _write_split(
    work: Path, folder: DataFolder, split: str, index: SplitIndex, limit: int, progress: OnProgress | None
) -> tuple[SplitManifest, list[str]]:
    """Write shards and index of a split; return its manifest and the sha256 of each image."""
    writer = ShardWriter(work, split, limit)
    places: list[tuple[int, int]] = []
    lengths: list[int] = []
    digests: list[str] = []
    images = read_images(index, folder.images(split), folder.annotations(split), progress=progress)
    for name, image in zip(index.file_name, images, strict=True):
        places.append(writer.add(name, image.data))
        lengths.append(len(image.data))
        digests.append(image.sha256)
    writer.close()
    stored = index.stored([shard for shard, _ in places], [offset for _, offset in places], lengths)
    path = work / f"{split}-index.npz"
    stored.save(path)
    entry = StoredFile(name=path.name, size=path.stat().st_size, sha256=sha256_file(path))
    manifest = SplitManifest(
        images=len(index),
        boxes=index.boxes,
        crowd=int(index.box_crowd.sum()),
        index=entry,
        shards=tuple(writer.files),
    )
    return manifest, digests


def _publish(store: Store, work: Path, manifest: DatasetManifest) -> tuple[DatasetManifest, str]:
    """Make the finished folder visible; a complete data set of the same content stays as it is."""
    key = f"datasets/{manifest.name}-{manifest.digest[:12]}"
    uri = store.uri_of(key)
    existing = _stored_whole(store, key, manifest.digest)
    if existing:
        return existing, uri
    target = store.local_path(key)
    if target is None:
        store.put_tree(work, key, last=MANIFEST_NAME)
        return manifest, uri
    sync_folder(work)
    try:
        os.replace(work, target)
    except OSError:
        # Another process may have published the same content in this moment; else these are remains of a broken one.
        existing = _stored_whole(store, key, manifest.digest)
        if existing:
            return existing, uri
        store.delete_tree(key, first=MANIFEST_NAME)
        os.replace(work, target)
    sync_folder(target.parent)
    return manifest, uri


def _stored_whole(store: Store, key: str, digest: str) -> DatasetManifest | None:
    """Return the manifest under ``key`` when it has this digest and all of its files are whole.

    Files in a folder are read for that; of objects, which cannot be changed in their place, the size tells.
    """
    try:
        manifest = DatasetManifest.model_validate_json(store.read_bytes(f"{key}/{MANIFEST_NAME}"))
    except (NotFound, ValidationError):
        return None
    sizes = {stored.key: stored.size for stored in store.list(key)}
    files = [file for split in manifest.splits.values() for file in (split.index, *split.shards)]
    if manifest.digest != digest or any(sizes.get(f"{key}/{file.name}") != file.size for file in files):
        return None
    paths = [(file, store.local_path(f"{key}/{file.name}")) for file in files]
    damaged = any(path is not None and sha256_file(path) != file.sha256 for file, path in paths)
    return None if damaged else manifest
