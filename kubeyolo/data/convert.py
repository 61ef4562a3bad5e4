"""Converts a data set from any supported layout to COCO, in the layout of docs/data.md."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import orjson

from kubeyolo.data.dataset import Dataset, Split
from kubeyolo.data.folder import open_source
from kubeyolo.data.manifest import DatasetManifest
from kubeyolo.data.shards import Reading, write_dataset
from kubeyolo.errors import InputError
from kubeyolo.progress import track
from kubeyolo.storage.file_errors import file_errors
from kubeyolo.storage.parts import remove_remains
from kubeyolo.storage.place import Place
from kubeyolo.storage.workspace import work_folder


@dataclass(frozen=True)
class Converted:
    """A converted data set: its folder, and the manifest of its source, with the findings."""

    folder: Path
    manifest: DatasetManifest


def convert_dataset(source: str | Path, out: Path, reading: Reading | None = None, link: bool = False) -> Converted:
    """Check a data set as validation does, and write the images and boxes that pass the checks as COCO.

    Each split gets ``annotations/<split>.json`` and a folder ``<split>`` with the unchanged image files. The ids of the
    source are kept; for formats without ids, images and boxes are numbered from 1 and classes from 0. ``out`` is
    written completely or not at all.

    Args:
        source: Folder or URI of the data set.
        out: A new or empty folder. During the conversion its disk holds all images twice.
        reading: The settings for reading the source; if None, the schema's defaults are used.
        link: Whether to make hard links to the image files instead of copies, if the disk supports hard links.

    Raises:
        InputError: ``out`` is not empty or lies in the source, or validation refuses the data set. Then nothing is
            written.
    """
    reading = reading or Reading()
    out = out.absolute()
    remove_remains(out.parent)
    _check_out(str(source), out)
    with file_errors(out), work_folder(out.parent) as work:
        dataset = write_dataset(source, Place.of(work / "store"), reading=reading)
        manifest = dataset.manifest
        folder = open_source(source, data_format=reading.data.format) if link else None
        made = work / "made"
        for name in manifest.splits:
            split = dataset.split(name)
            _write_split(dataset, split, made, folder.images(name) if folder else None)
            split.close()
        _check_out(str(source), out)
        try:
            # An empty folder is replaced.
            os.replace(made, out)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise InputError(f"{out}: another process has written it meanwhile; give a new folder") from error
    return Converted(out, manifest)


def _check_out(source: str, out: Path) -> None:
    if out.is_dir() and not os.path.islink(out):
        with file_errors(out):
            first = next(out.iterdir(), None)
        if first is not None:
            raise InputError(f"{out}: is not empty ({first.name}); give a new folder")
    elif os.path.lexists(out):
        raise InputError(f"{out}: exists and is not a folder; give a new folder")
    root = Path(source).resolve()
    if root.is_dir() and out.resolve().is_relative_to(root):
        raise InputError(f"{out}: lies in the data set {source}; give a folder outside of it")


def _write_split(dataset: Dataset, split: Split, folder: Path, linked: Path | None) -> None:
    """Write annotations and images of a split; images are hard links to the files in ``linked`` if possible."""
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
        if linked is None or not _link(linked / name, target):
            target.write_bytes(split.read_bytes(i))


def _link(source: Path, target: Path) -> bool:
    """Make a hard link to a file; tell whether that was possible."""
    try:
        # A link to a symbolic link would break when the data set moves.
        os.link(os.path.realpath(source), target)
    except OSError:
        return False
    return True
