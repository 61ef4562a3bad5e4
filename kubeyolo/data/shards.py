"""Stores a checked data set: images in tar shards, boxes in an index for each split, the manifest last."""

from __future__ import annotations

import glob
import hashlib
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from kubeyolo.config.training_schema import DataConfig
from kubeyolo.data.annotations import Annotations, note_classes, refuse_no_boxes
from kubeyolo.data.checks import CheckedImage, OnProgress, check_images
from kubeyolo.data.dataset import Dataset, open_dataset
from kubeyolo.data.digest import content_digest
from kubeyolo.data.duplicates import ComparedImage, find_copies
from kubeyolo.data.file_names import FileNames
from kubeyolo.data.findings import Findings
from kubeyolo.data.folder import DataFolder, open_source, read_annotations
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.layouts.tree import list_files
from kubeyolo.data.layouts.types import REQUIRED_SPLITS
from kubeyolo.data.manifest import MANIFEST_NAME, DatasetManifest, SplitManifest, StoredFile
from kubeyolo.documents import NotJson, read_model
from kubeyolo.errors import InputError
from kubeyolo.progress import track
from kubeyolo.storage.base import NotFound, Store
from kubeyolo.storage.cache import cache_folder
from kubeyolo.storage.claim import claimed
from kubeyolo.storage.conditional_file import folder_lock
from kubeyolo.storage.integrity import sha256_file, sync_folder
from kubeyolo.storage.owned_folder import OWNER_SUFFIX
from kubeyolo.storage.place import Place
from kubeyolo.storage.workspace import work_folder

SHARD_BYTES = 256_000_000
"""Largest size of a shard, unless one image is larger."""

_CLAIM = f"writing{OWNER_SUFFIX}"
"""Name of the claim of a process that writes a data set into an object store."""

_MOST_FAULTS = 100
"""The check of a split stops after this many refused images."""

_Content = tuple[SplitIndex, list[str]]
"""The index of a split, and the sha256 of each of its images."""

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)


@dataclass(frozen=True)
class Reading:
    """The settings for reading a data set.

    Attributes:
        data: The section ``data`` of the configuration.
        evaluated: The split that is evaluated; like train it must have boxes.
        progress: Called with the number of checked images; if None, a progress bar is shown.
    """

    data: DataConfig = DataConfig()
    evaluated: str = "val"
    progress: OnProgress | None = None

    @property
    def levels(self) -> tuple[float, float] | None:
        """The values that become 0 and 255, for samples of more than 8 bits; None for the whole range."""
        return (self.data.levels[0], self.data.levels[1]) if self.data.levels else None


def write_dataset(source: str | Path, store: Place, reading: Reading | None = None) -> Dataset:
    """Check a data set and store it under ``datasets/<name>-<digest>/``.

    Every image is read once. If the same data set is already complete in the store, its files are not written again.

    Args:
        source: Folder or URI in a layout that :mod:`kubeyolo.data.layout` recognizes.
        store: The store to write to.
        reading: The settings for reading the data set; if None, the schema's defaults are used.

    Returns:
        The stored data set; its manifest has the findings.

    Raises:
        InputError: Annotations or images are wrong, or a finding refuses the data set; then nothing is stored.
    """
    reading = reading or Reading()
    findings = Findings(reading.data.findings, reading.data.strict)
    folder = open_source(source, data_format=reading.data.format)
    annotations = read_annotations(folder, reading.data, reading.evaluated, findings)
    findings.check()
    # The work folder lies inside the store if that is a folder, so that publishing is a rename.
    with work_folder(store.store.local_path("datasets") or cache_folder("work")) as work:
        splits, contents = _write_splits(work, folder, annotations, reading, findings)
        findings.check()
        manifest = DatasetManifest(
            name=folder.name,
            source=folder.source,
            layout=folder.layout.words,
            digest=content_digest(annotations.classes, annotations.category_ids, contents, reading.levels),
            classes=annotations.classes,
            category_ids=annotations.category_ids,
            category_keys=annotations.category_keys,
            levels=reading.levels,
            splits=splits,
            findings=findings.all(),
        )
        (work / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=1))
        return open_dataset(_publish(store, work, manifest))


def _write_splits(
    work: Path, folder: DataFolder, annotations: Annotations, reading: Reading, findings: Findings
) -> tuple[dict[str, SplitManifest], dict[str, _Content]]:
    """Check the images of all splits and write them; an optional split with a fault is left out."""
    splits: dict[str, SplitManifest] = {}
    contents: dict[str, _Content] = {}
    compared: dict[str, list[ComparedImage]] = {}
    required = {*REQUIRED_SPLITS, reading.evaluated}
    for split, index in annotations.splits.items():
        own = findings.empty_copy()
        try:
            written = _SplitWriter(work, split, index, folder, own).write(reading)
            if split not in required:
                own.check()
        except InputError as error:
            if split in required:
                raise
            _remove_files(work, split)
            findings.add("split_left_out", f"split {split!r}: {error}")
            continue
        splits[split], contents[split], compared[split] = written
        findings.extend(own.all())
    indices = {split: index for split, (index, _) in contents.items()}
    for split in ("train", reading.evaluated):
        if split in indices:
            refuse_no_boxes(folder.source, split, indices[split])
    note_classes(annotations.classes, indices, findings)
    find_copies(compared, findings)
    return splits, contents


def _remove_files(work: Path, split: str) -> None:
    """Remove the files of a split."""
    for ending in ("-index.npz", "-[0-9]*.tar"):
        for path in work.glob(glob.escape(split) + ending):
            path.unlink()


class ShardWriter:
    """Writes files into numbered, uncompressed tar archives, without times and owners to make them reproducible."""

    def __init__(self, folder: Path, split: str, limit: int) -> None:
        self._folder = folder
        self._split = split
        self._limit = limit
        self._path: Path | None = None
        self._size = 0
        self._digest = hashlib.sha256()
        self.files: list[StoredFile] = []

    def add(self, name: str, data: bytes) -> tuple[int, int]:
        """Append a file; return the number of its shard and the offset of its content in the shard, in bytes."""
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
        """Finish the open shard, if there is one."""
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


class _SplitWriter:
    """Checks the images of a split and writes the images that are not refused or left out."""

    def __init__(self, work: Path, split: str, index: SplitIndex, folder: DataFolder, findings: Findings) -> None:
        self._work = work
        self._split = split
        self._index = index
        self._images = folder.images(split)
        self._annotations = Path(folder.files(split).annotations).name or "the data set"
        self._findings = findings
        self._faults = 0
        self._names: FileNames | None = None

    def write(self, reading: Reading) -> tuple[SplitManifest, _Content, list[ComparedImage]]:
        """Write shards and index; return the split's manifest and content, and the data for finding copies."""
        writer = ShardWriter(self._work, self._split, SHARD_BYTES)
        offsets: list[tuple[int, int]] = []
        lengths: list[int] = []
        digests: list[str] = []
        compared: list[ComparedImage] = []
        kept = np.zeros(len(self._index), bool)
        used = np.zeros((len(self._index), 2), np.int64)
        orientation = np.ones(len(self._index), np.uint8)
        for i, image in enumerate(self._looked(reading)):
            if self._is_left_out(i, image):
                continue
            kept[i] = True
            used[i] = image.width, image.height
            orientation[i] = image.orientation
            compared.append(ComparedImage(self._index.file_name[i], image.sha256, image.hash, image.thumbnail))
            offsets.append(writer.add(self._index.file_name[i], image.data))
            lengths.append(len(image.data))
            digests.append(image.sha256)
        writer.close()
        if self._faults:
            # Raises with the first case of the refused finding; nothing is stored.
            self._findings.check()
        index = self._index.with_images(used, orientation).select(kept)
        if not len(index):
            raise InputError(f"{self._images}: no image of split {self._split!r} is left; correct the image files")
        stored = index.with_locations([shard for shard, _ in offsets], [offset for _, offset in offsets], lengths)
        path = self._work / f"{self._split}-index.npz"
        stored.save(path)
        entry = StoredFile(name=path.name, size=path.stat().st_size, sha256=sha256_file(path))
        manifest = SplitManifest(
            images=len(index),
            boxes=index.boxes,
            crowd=int(index.box_crowd.sum()),
            index=entry,
            shards=tuple(writer.files),
        )
        return manifest, (index, digests), compared

    def _looked(self, reading: Reading) -> Iterator[CheckedImage]:
        """Check the images in the order of the index; stop early if too many are refused."""
        index = self._index
        looked = check_images(
            [self._images / name for name in index.file_name],
            list(zip(index.width.tolist(), index.height.tolist(), strict=True)),
            apply_orientation=reading.data.orientation == "auto",
            levels=reading.levels,
        )
        what, progress = f"checking images of {self._split}", reading.progress
        for i, image in enumerate(looked if progress else track(looked, what, total=len(index))):
            if progress:
                progress(what, i + 1, len(index))
            yield image
            if self._faults >= _MOST_FAULTS:
                return

    def _hint(self, i: int) -> str:
        """Return a hint that names a file whose name is similar to a missing file's name; empty if there is none."""
        if self._names is None:
            self._names = FileNames(self._images, list_files(self._images))
        hint = self._names.match(self._index.file_name[i]).hint
        return f"; {hint}" if hint else ""

    def _is_left_out(self, i: int, image: CheckedImage) -> bool:
        """Add the findings of an image; return whether it is left out."""
        path = self._images / self._index.file_name[i]
        for note in image.notes:
            self._findings.add(note.code, f"{path} {note.words}".strip())
        if not image.fault:
            return False
        label = self._index.image_key[i] if self._index.image_key else self._index.image_id[i]
        hint = self._hint(i) if image.fault_code == "image_missing" else ""
        self._findings.add(image.fault_code, f"{path} (image {label} of {self._annotations}) {image.fault}{hint}")
        is_refused = self._findings.action(image.fault_code) == "refuse"
        self._faults += is_refused
        return is_refused or image.fault_code != "size_scaled"


def _publish(place: Place, work: Path, manifest: DatasetManifest) -> Place:
    """Move the finished folder into the store, unless the store has the same data set; return its folder there."""
    key = f"datasets/{manifest.name}-{manifest.digest[:12]}"
    store, published = place.store, place / key
    target = store.local_path(key)
    # A killed process may have left its claim next to the complete data set.
    if _is_stored(store, key, manifest) and (target is not None or not store.exists(f"{key}/{_CLAIM}")):
        return published
    if target is None:
        # Processes that store the same data set at once write one after the other.
        with claimed(published, key=_CLAIM, stays=False):
            if not _is_stored(store, key, manifest):
                store.remove_remains(key, [path.name for path in work.iterdir()])
                store.put_tree(work, key, last=MANIFEST_NAME)
        return published
    sync_folder(work)
    with folder_lock(target.parent):
        try:
            os.replace(work, target)
        except OSError:
            # Another process may have just published the same content; otherwise the target is incomplete or damaged.
            if _is_stored(store, key, manifest):
                return published
            store.delete_tree(key, first=MANIFEST_NAME)
            os.replace(work, target)
    sync_folder(target.parent)
    return published


def _is_stored(store: Store, key: str, manifest: DatasetManifest) -> bool:
    """Tell whether the data set is complete in the store; if so, update its findings, which depend on the source."""
    existing = _stored_whole(store, key, manifest.digest)
    if existing and existing.findings != manifest.findings:
        # A manifest with schema version 1, which has no findings, gets the current version.
        renewing = ("schema_version", "findings", "source", "layout")
        renewed = existing.model_copy(update={name: getattr(manifest, name) for name in renewing})
        store.write_bytes(f"{key}/{MANIFEST_NAME}", renewed.model_dump_json(indent=1).encode())
    return existing is not None


def _stored_whole(store: Store, key: str, digest: str) -> DatasetManifest | None:
    """Return the manifest under ``key`` if it has ``digest`` and all its files are complete and undamaged.

    The contents of local files are checked; for objects, which cannot be modified, checking the size is enough.
    """
    try:
        manifest = read_model(store.read_bytes(f"{key}/{MANIFEST_NAME}"), DatasetManifest, key)
    except (NotFound, NotJson, ValidationError):
        return None
    sizes = {stored.key: stored.size for stored in store.list(key)}
    files = [file for split in manifest.splits.values() for file in (split.index, *split.shards)]
    if manifest.digest != digest or any(sizes.get(f"{key}/{file.name}") != file.size for file in files):
        return None
    paths = [(file, store.local_path(f"{key}/{file.name}")) for file in files]
    damaged = any(path is not None and sha256_file(path) != file.sha256 for file, path in paths)
    return None if damaged else manifest
