"""A data set as it comes in: a folder, or the same under a prefix of an object store.

How it is laid out is found out by :mod:`kubeyolo.data.layout`; here it is opened, downloaded and read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kubeyolo.config.schema import DataConfig
from kubeyolo.data.annotations import Annotations, Sources, check_annotations
from kubeyolo.data.dividing import divide
from kubeyolo.data.file_names import FileNames
from kubeyolo.data.findings import Findings
from kubeyolo.data.layout import REQUIRED_SPLITS, SINGLE, Layout, SplitFiles, find_layout, local_layout
from kubeyolo.data.layouts.tree import list_files
from kubeyolo.data.raw import RawSplit
from kubeyolo.data.readers.coco_json import read_coco_json
from kubeyolo.data.readers.reading import split_reader
from kubeyolo.errors import InputError
from kubeyolo.storage.base import Listing, Store
from kubeyolo.storage.cache import cache_folder
from kubeyolo.storage.integrity import appearing_folder, sha256_bytes
from kubeyolo.storage.location import FileLocation, parse
from kubeyolo.storage.uri import open_store


@dataclass(frozen=True)
class DataFolder:
    """A data set in a folder of this machine."""

    name: str
    source: str
    root: Path
    layout: Layout

    def files(self, split: str) -> SplitFiles:
        """Return where a split lies; one that is to be divided lies where the whole does."""
        return self.layout.splits[SINGLE if self.layout.is_single else split]

    def images(self, split: str) -> Path:
        """Return the image folder of a split."""
        return self.root / self.files(split).images


def open_source(source: str | Path, cache: Path | None = None, data_format: str = "") -> DataFolder:
    """Find the splits of a data set; one in an object store is downloaded to ``cache`` first, once for each state.

    Args:
        source: Folder or URI.
        cache: Where downloads are kept.
        data_format: The one format to look for; empty for all.

    Raises:
        InputError: There is no data set, or it is incomplete or ambiguous.
    """
    uri = str(source)
    store = open_data(uri, data_format)
    local = store.local_path()
    if local is not None:
        return DataFolder(dataset_name(uri), uri, local, local_layout(local, data_format))
    objects = store.list()
    layout = stored_layout(store, objects, data_format)
    folder = _download(store, objects, layout, cache if cache is not None else cache_folder("sources"))
    return DataFolder(dataset_name(uri), uri, folder, layout)


def open_data(uri: str, data_format: str = "") -> Store:
    """Open the store that a data set lies in.

    Raises:
        InputError: The place is an archive or a file of a data set; the message says what to give.
    """
    location = parse(uri)
    if isinstance(location, FileLocation) and location.path.is_file():
        local_layout(location.path, data_format)
    return open_store(uri)


def dataset_name(uri: str) -> str:
    """Return the name of a data set: the last part of its URI, in lower-case letters, digits and '-'."""
    location = parse(uri)
    if isinstance(location, FileLocation):
        last = location.path.resolve().name
    else:
        last = location.prefix.rpartition("/")[2] or location.bucket
    return re.sub(r"[^a-z0-9]+", "-", last.lower())[:40].strip("-") or "dataset"


def stored_layout(store: Store, objects: Listing, data_format: str = "") -> Layout:
    """Return how the data set in an object store is laid out, from its listing; only small files are read."""
    return find_layout([stored.key for stored in objects], store.uri, data_format, store.read_bytes)


def read_annotations(
    folder: DataFolder, data: DataConfig | None = None, evaluated: str = "val", findings: Findings | None = None
) -> Annotations:
    """Read and check the annotations of all splits.

    Args:
        folder: The data set.
        data: How it is read; None takes the schema's defaults.
        evaluated: The split that is evaluated; it must have boxes, as train must.
        findings: Receives what was found; None refuses what the defaults refuse.

    Raises:
        InputError: An annotation file is wrong, the splits give a class different ids, or a required split has no
            boxes.
    """
    data = data or DataConfig()
    own = findings if findings is not None else Findings(data.findings, data.strict)
    for words in folder.layout.left_out:
        own.add("split_left_out", words)
    required = {*REQUIRED_SPLITS, evaluated}
    raws = _divided(folder, data, own) if folder.layout.is_single else _read_splits(folder, required, own)
    names: dict[str, FileNames] = {}
    for split in raws:
        place = folder.images(split)
        if not place.is_dir():
            raise InputError(f"{place}: no such folder; split {split!r} needs its images there")
        names[split] = next((known for known in names.values() if known.folder == place), None) or FileNames(
            place, list_files(place)
        )
    sources = Sources(raws, names, required, {"train", evaluated})
    annotations = check_annotations(sources, own, data.orientation == "auto")
    if findings is None:
        own.check()
    return annotations


def _read_splits(folder: DataFolder, required: Collection[str], findings: Findings) -> dict[str, RawSplit]:
    """Read the tables of each split; an optional one that cannot be read is left out."""
    read = split_reader(folder.root, folder.layout, read_coco_json)
    raws: dict[str, RawSplit] = {}
    for split in sorted(folder.layout.splits):
        try:
            raws[split] = read(folder.files(split))
        except InputError as error:
            if split in required:
                raise
            findings.add("split_left_out", f"split {split!r}: {error}")
    return raws


def _divided(folder: DataFolder, data: DataConfig, findings: Findings) -> dict[str, RawSplit]:
    """Read the one annotation source of a data set and divide it into train and val."""
    read_coco = partial(read_coco_json, group_key=data.split_group)
    raw = split_reader(folder.root, folder.layout, read_coco)(folder.files(SINGLE))
    if data.split_group and not any(label is not None for label in raw.images.groups or ()):
        raise InputError(
            f"{raw.where}: no image has the key {data.split_group!r} that data.split_group names; correct it"
        )
    raws = divide(raw, data.split, data.split_seed)
    counts = " and ".join(f"{len(part.images.ids)} {split}" for split, part in raws.items())
    groups = f", by {data.split_group}" if data.split_group else ""
    findings.add(
        "split_made", f"{raw.where}: {counts}", len(raw.images.ids), f"data.split={data.split:g}{groups}: {counts}"
    )
    return raws


def listing_digest(objects: Listing) -> str:
    """Return the sha256 of names, sizes and etags of stored objects."""
    lines = [f"{stored.key}\0{stored.size}\0{stored.etag}\n" for stored in objects]
    return sha256_bytes("".join(lines).encode())


def belongs_to(layout: Layout) -> Callable[[str], bool]:
    """Return what tells whether a file, by its path relative to the root, belongs to the content of a data set."""
    places = _places(layout)
    if "" in places:
        return lambda path: True
    folders = tuple(f"{place}/" for place in places)
    return lambda path: path in places or path.startswith(folders)


def _places(layout: Layout) -> set[str]:
    """Return the files and folders that hold the content of a data set; '' is its root."""
    places = {place for files in layout.splits.values() for place in (files.annotations, files.images, *files.members)}
    return places | set(layout.extra)


def _download(store: Store, objects: Listing, layout: Layout, cache: Path) -> Path:
    """Return a folder with the files of a stored data set, whole or not at all."""
    belongs = belongs_to(layout)
    ours = [stored for stored in objects if belongs(stored.key)]
    target = cache / listing_digest(ours)[:16]
    if target.is_dir():
        return target
    with appearing_folder(target) as part:
        for place, is_folder in _roots(ours, _places(layout)).items():
            if is_folder:
                store.get_tree(place, part / place)
            else:
                store.get_file(place, part / place)
    return target


def _roots(objects: Listing, places: Collection[str]) -> Mapping[str, bool]:
    """Return the topmost folders and files to download, and whether each is a folder.

    A place inside another one comes with it. Where the root is a place, these are its folders and files.
    """
    roots: dict[str, bool] = {}
    for stored in objects:
        parts = stored.key.split("/")
        above = ("/".join(parts[:end]) for end in range(1, len(parts) + 1))
        root = parts[0] if "" in places else next(path for path in above if path in places)
        roots[root] = root != stored.key
    return roots
