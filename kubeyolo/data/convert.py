"""A data set in any layout that is read, written as COCO in the layout of docs/data.md."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson

from kubeyolo.data.dataset import Dataset, Split, open_dataset
from kubeyolo.data.folder import open_source
from kubeyolo.data.manifest import DatasetManifest
from kubeyolo.data.shards import Reading, write_dataset
from kubeyolo.errors import InputError
from kubeyolo.progress import track
from kubeyolo.storage.file_errors import file_errors
from kubeyolo.storage.workspace import work_folder

PutImage = Callable[[int, Path], None]
"""Called with the position of an image and the path that it is to have."""


@dataclass(frozen=True)
class Converted:
    """A written data set: its folder, and the manifest of what was read, with its findings."""

    folder: Path
    manifest: DatasetManifest


def convert_dataset(source: str | Path, out: Path, reading: Reading | None = None, link: bool = False) -> Converted:
    """Check a data set as a validation does and write what is kept of it as COCO.

    For each split ``annotations/<split>.json`` and a folder ``<split>`` of the image files as they were. Ids are those
    of the source; formats without ids have their images and boxes numbered from 1 and their classes from 0. ``out`` is
    made whole or not at all.

    Args:
        source: Folder or URI of the data set.
        out: A folder that is new or empty. While it is made, its disk has all images twice.
        reading: How the source is read.
        link: Make hard links to the image files where the disk allows it, not copies.

    Raises:
        InputError: ``out`` is not empty or lies in the source; or as in a validation, nothing is written then.
    """
    reading = reading or Reading()
    out = out.absolute()
    _check_out(str(source), out)
    with file_errors(out), work_folder(out.parent) as work:
        manifest, uri = write_dataset(source, str(work / "store"), reading=reading)
        dataset = open_dataset(uri)
        folder = open_source(source, data_format=reading.data.format) if link else None
        made = work / "made"
        for name in manifest.splits:
            split = dataset.split(name)
            put = _copier(split) if folder is None else _linker(split, folder.images(name))
            _write_split(dataset, split, made, put)
            split.close()
        if out.is_dir():
            out.rmdir()
        os.replace(made, out)
    return Converted(out, manifest)


def _check_out(source: str, out: Path) -> None:
    if out.is_dir() and not os.path.islink(out):
        with file_errors(out):
            first = next(out.iterdir(), None)
        if first is not None:
            raise InputError(f"{out}: is not empty ({first.name}); give a new folder")
    elif os.path.lexists(out):
        raise InputError(f"{out}: is there already, and not a folder; give a new folder")
    root = Path(source).resolve()
    if root.is_dir() and out.resolve().is_relative_to(root):
        raise InputError(f"{out}: lies in the data set {source}; give a folder outside of it")


def _write_split(dataset: Dataset, split: Split, folder: Path, put: PutImage) -> None:
    document = split.index.to_coco(dataset.classes, dataset.manifest.category_ids)
    path = folder / "annotations" / f"{split.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(document))
    images = folder / split.name
    images.mkdir()
    parents = {images}
    for i, name in enumerate(track(split.index.file_name, f"writing images of {split.name}", total=len(split))):
        target = images / name
        if target.parent not in parents:
            target.parent.mkdir(parents=True, exist_ok=True)
            parents.add(target.parent)
        put(i, target)


def _copier(split: Split) -> PutImage:
    return lambda i, target: _write(split, i, target)


def _linker(split: Split, source: Path) -> PutImage:
    def link(i: int, target: Path) -> None:
        try:
            # A link to a link would break when the data set moves.
            os.link(os.path.realpath(source / split.index.file_name[i]), target)
        except OSError:
            _write(split, i, target)

    return link


def _write(split: Split, i: int, target: Path) -> None:
    target.write_bytes(split.read_bytes(i))
