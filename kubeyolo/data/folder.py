"""Opens, downloads and reads a data set from a folder or from a prefix of an object store.

:mod:`kubeyolo.data.layout` recognizes its layout.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kubeyolo.config.training_schema import DataConfig
from kubeyolo.data.annotations import Annotations, Sources, check_annotations
from kubeyolo.data.dividing import divide
from kubeyolo.data.file_names import FileNames
from kubeyolo.data.findings import Findings
from kubeyolo.data.layout import find_layout, local_layout
from kubeyolo.data.layouts.tree import list_files
from kubeyolo.data.layouts.types import REQUIRED_SPLITS, SINGLE, Layout, SplitFiles
from kubeyolo.data.raw import RawSplit
from kubeyolo.data.readers import cvat, yolo
from kubeyolo.data.readers.coco_json import read_coco_json
from kubeyolo.data.readers.labelme import LabelmeReader
from kubeyolo.data.readers.voc import VocReader
from kubeyolo.errors import InputError
from kubeyolo.storage.base import Listing, Store
from kubeyolo.storage.cache import cache_folder
from kubeyolo.storage.integrity import appearing_folder, sha256_bytes
from kubeyolo.storage.location import FileLocation, parse
from kubeyolo.storage.place import Place


@dataclass(frozen=True)
class DataFolder:
    """A data set in a folder of this machine."""

    name: str
    source: str
    root: Path
    layout: Layout

    def files(self, split: str) -> SplitFiles:
        """Return the files of a split; for a data set without splits, all files."""
        return self.layout.splits[SINGLE if self.layout.is_single else split]

    def images(self, split: str) -> Path:
        """Return the image folder of a split."""
        return self.root / self.files(split).images


def open_source(source: str | Path, data_format: str = "") -> DataFolder:
    """Find the splits of a data set; first download it from an object store if the cache does not have it.

    Args:
        source: Folder or URI.
        data_format: The format of the data set; if empty, it is recognized.

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
    folder = _download(store, objects, layout, cache_folder("sources"))
    return DataFolder(dataset_name(uri), uri, folder, layout)


def open_data(uri: str, data_format: str = "") -> Store:
    """Open the store of a data set.

    Raises:
        InputError: The URI is an archive or a file of a data set; the message explains what to give instead.
    """
    location = parse(uri)
    if isinstance(location, FileLocation) and location.path.is_file():
        local_layout(location.path, data_format)
    return Place.of(uri).store


def dataset_name(uri: str) -> str:
    """Return the name of a data set: the last part of its URI, in lower-case letters, digits and '-'."""
    location = parse(uri)
    if isinstance(location, FileLocation):
        last = location.path.resolve().name
    else:
        last = location.prefix.rpartition("/")[2] or location.bucket
    return re.sub(r"[^a-z0-9]+", "-", last.lower())[:40].strip("-") or "dataset"


def stored_layout(store: Store, objects: Listing, data_format: str = "") -> Layout:
    """Return the layout of a data set in an object store from its listing; only small description files are read."""
    return find_layout([stored.key for stored in objects], store.uri, store.read_bytes, data_format)


def read_annotations(
    folder: DataFolder, data: DataConfig | None = None, evaluated: str = "val", findings: Findings | None = None
) -> Annotations:
    """Read and check the annotations of all splits.

    Args:
        folder: The data set.
        data: The settings for reading it; if None, the schema's defaults are used.
        evaluated: The split that is evaluated; like train it must have boxes.
        findings: Receives the findings; if None, a finding with the action ``refuse`` is raised.

    Raises:
        InputError: An annotation file is wrong, a class has different ids in different splits, or a required split has
            no boxes.
    """
    data = data or DataConfig()
    own = findings if findings is not None else Findings(data.findings, data.strict)
    for words in folder.layout.left_out:
        own.add("split_left_out", words)
    required = {*REQUIRED_SPLITS, evaluated}
    raws = _divided(folder, data, own) if folder.layout.is_single else _read_splits(folder, data, required, own)
    _check_facts(raws, data.slice_keys)
    names: dict[str, FileNames] = {}
    for split in raws:
        images = folder.images(split)
        if not images.is_dir():
            raise InputError(f"{images}: no such folder; put the images of split {split!r} there")
        same = next((each for each in names.values() if each.folder == images), None)
        names[split] = same or FileNames(images, list_files(images))
    sources = Sources(raws, names, required, {"train", evaluated})
    annotations = check_annotations(sources, own, data.orientation == "auto")
    if findings is None:
        own.check()
    return annotations


def count_classes(source: str | Path, data: DataConfig) -> int:
    """Return the number of classes that have boxes in train, unchecked; 0 if unknown.

    It is unknown if the data set is in an object store, since its annotations would have to be downloaded, or if its
    annotations cannot be read.
    """
    try:
        if open_data(str(source), data.format).local_path() is None:
            return 0
        folder = open_source(source, data.format)
        raw = split_reader(folder.root, folder.layout)(folder.files("train"))
    except (InputError, KeyError):
        return 0
    return len({str(category) for category in raw.boxes.category_ids if category is not None})


def split_reader(
    root: Path, layout: Layout, group_key: str = "", fact_keys: Sequence[str] = ()
) -> Callable[[SplitFiles], RawSplit]:
    """Return a function that reads a split of a data set.

    Args:
        root: The folder of the data set.
        layout: Its layout.
        group_key: The key whose value groups the images of a COCO JSON file; if empty, images are not grouped.
        fact_keys: Further keys of the images of a COCO JSON file whose values are read.

    Raises:
        InputError: The images of a layout other than COCO have no keys to read.
    """
    if fact_keys and layout.format != "coco":
        raise InputError(
            f"data.slice_keys = {', '.join(fact_keys)}: images have such keys in COCO JSON only, and {root} is "
            f"{layout.format}; leave data.slice_keys out, or write COCO with kubeyolo convert and add the keys there"
        )
    if layout.format == "voc":
        return VocReader(root, layout).read
    if layout.format == "labelme":
        return LabelmeReader(root, layout).read
    if layout.format == "yolo":
        return lambda files: yolo.read(root, files, layout)
    if layout.format == "cvat":
        return lambda files: cvat.read(root, files, layout)
    return lambda files: read_coco_json(root / files.annotations, group_key, fact_keys)


def _check_facts(raws: Mapping[str, RawSplit], fact_keys: Sequence[str]) -> None:
    """Refuse a key that no image has, and values that are not numbers, texts, booleans or null."""
    for key in fact_keys:
        with_key = 0
        for raw in raws.values():
            for name, facts in zip(raw.images.names, raw.images.facts or (), strict=False):
                with_key += key in facts
                if not isinstance(facts.get(key), str | int | float | None):
                    raise InputError(
                        f"{raw.where}: image {name!r} has a {key!r} that is not a number or a text; "
                        f"take {key!r} out of data.slice_keys"
                    )
        if not with_key:
            where = next(iter(raws.values())).where
            raise InputError(f"{where}: no image has the key {key!r} (data.slice_keys); correct data.slice_keys")


def _read_splits(
    folder: DataFolder, data: DataConfig, required: Collection[str], findings: Findings
) -> dict[str, RawSplit]:
    """Read the tables of each split; an optional split that cannot be read is left out."""
    read = split_reader(folder.root, folder.layout, fact_keys=data.slice_keys)
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
    """Read the annotations of a data set without splits and divide them into train and val."""
    raw = split_reader(folder.root, folder.layout, data.split_group, data.slice_keys)(folder.files(SINGLE))
    if data.split_group and not any(label is not None for label in raw.images.groups or ()):
        raise InputError(
            f"{raw.where}: no image has the key {data.split_group!r} (data.split_group); correct data.split_group"
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
    """Return a function that tells whether a path relative to the root belongs to the data set."""
    content = _content(layout)
    if "" in content:
        return lambda path: True
    folders = tuple(f"{path}/" for path in content)
    return lambda path: path in content or path.startswith(folders)


def _content(layout: Layout) -> set[str]:
    """Return the files and folders of a data set; '' is its root."""
    paths = {path for files in layout.splits.values() for path in (files.annotations, files.images, *files.members)}
    return paths | set(layout.extra)


def _download(store: Store, objects: Listing, layout: Layout, cache: Path) -> Path:
    """Download a data set and return its folder, which is created only if the download is complete."""
    belongs = belongs_to(layout)
    ours = [stored for stored in objects if belongs(stored.key)]
    target = cache / listing_digest(ours)[:16]
    if target.is_dir():
        return target
    with appearing_folder(target) as part:
        for path, is_folder in _roots(ours, _content(layout)).items():
            if is_folder:
                store.get_tree(path, part / path)
            else:
                store.get_file(path, part / path)
    return target


def _roots(objects: Listing, content: Collection[str]) -> Mapping[str, bool]:
    """Return the topmost folders and files to download, and whether each is a folder.

    A folder is downloaded with everything inside it. If the content is the whole root, the result is the root's
    folders and files.
    """
    roots: dict[str, bool] = {}
    for stored in objects:
        parts = stored.key.split("/")
        above = ("/".join(parts[:end]) for end in range(1, len(parts) + 1))
        root = parts[0] if "" in content else next(path for path in above if path in content)
        roots[root] = root != stored.key
    return roots
