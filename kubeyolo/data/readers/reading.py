"""The reader of each format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kubeyolo.data.layouts.types import Layout, SplitFiles
from kubeyolo.data.raw import RawSplit
from kubeyolo.data.readers import cvat, yolo
from kubeyolo.data.readers.labelme import LabelmeReader
from kubeyolo.data.readers.voc import VocReader

ReadSplit = Callable[[SplitFiles], RawSplit]


def split_reader(root: Path, layout: Layout, read_coco: Callable[[Path], RawSplit]) -> ReadSplit:
    """Return what reads the splits of a data set, one at a time.

    Args:
        root: The folder of the data set.
        layout: Its layout.
        read_coco: Reads a COCO JSON file.
    """
    if layout.format == "voc":
        return VocReader(root, layout).read
    if layout.format == "labelme":
        return LabelmeReader(root, layout).read
    if layout.format == "yolo":
        return lambda files: yolo.read(root, files, layout)
    if layout.format == "cvat":
        return lambda files: cvat.read(root, files, layout)
    return lambda files: read_coco(root / files.annotations)
