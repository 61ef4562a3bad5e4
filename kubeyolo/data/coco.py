"""One COCO annotation file with its image folder: what a split of a data set is made of, by itself."""

from __future__ import annotations

from pathlib import Path

from kubeyolo.data.annotations import Sources, check_annotations
from kubeyolo.data.file_names import FileNames
from kubeyolo.data.findings import Findings
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.layouts.tree import list_files
from kubeyolo.data.readers.coco_json import read_coco_json
from kubeyolo.errors import InputError


def read_coco(
    annotation_file: Path, image_folder: Path, findings: Findings | None = None
) -> tuple[SplitIndex, tuple[str, ...], tuple[int, ...]]:
    """Read and check the annotations of one split; it may be without boxes.

    Args:
        annotation_file: COCO "instances" JSON.
        image_folder: The folder of its images.
        findings: Receives what was found; without it the findings that are refused by default are raised.

    Returns:
        The index, the class names and the category ids, both ordered by category id.

    Raises:
        InputError: The file or the folder is missing, or an entry is wrong.
    """
    if not image_folder.is_dir():
        raise InputError(f"{image_folder}: no such folder; {annotation_file.name} needs its images there")
    own = findings if findings is not None else Findings()
    files = FileNames(image_folder, list_files(image_folder))
    name = annotation_file.stem
    sources = Sources({name: read_coco_json(annotation_file)}, {name: files}, required=(name,), with_boxes=())
    annotations = check_annotations(sources, own)
    if findings is None:
        own.check()
    return annotations.splits[name], annotations.classes, annotations.category_ids
