"""The annotations of a data set: tables of any reader, checked, mended where that is right, and made into indices."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kubeyolo.data.boxes import Boxes, ImagesOfBoxes, read_boxes
from kubeyolo.data.categories import Categories, join_categories
from kubeyolo.data.columns import duplicates, places_of, read_keys, refuse, shown, whole_numbers
from kubeyolo.data.file_names import FileNames, NameMatch, is_file_name
from kubeyolo.data.findings import Findings
from kubeyolo.data.headers import size_of_file
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.raw import RawSplit
from kubeyolo.errors import InputError

_LARGEST_SIDE = 1 << 30


@dataclass(frozen=True)
class Annotations:
    """The checked annotations of all splits; classes are ordered by category id."""

    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    splits: dict[str, SplitIndex]
    category_keys: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Sources:
    """What a data set is read from.

    Attributes:
        raws: The tables of each split.
        images: The files in the image folder of each split.
        required: Splits that must be right; a fault in another one leaves that out.
        with_boxes: Splits that must have boxes.
    """

    raws: Mapping[str, RawSplit]
    images: Mapping[str, FileNames]
    required: Collection[str]
    with_boxes: Collection[str]


def check_annotations(sources: Sources, findings: Findings, apply_orientation: bool = True) -> Annotations:
    """Check the annotations of all splits; image files are opened only where their size is not in the annotations.

    Args:
        sources: Tables and image folders.
        findings: Receives what was found; it is not asked here whether it refuses.
        apply_orientation: Whether a size that is read from an image file is that of the turned image.

    Raises:
        InputError: A table is wrong in a way that cannot be mended, a required split has no boxes, or the splits give a
            class different ids.
    """
    raws = {split: raw for split, raw in sources.raws.items() if _is_usable(split, raw, sources, findings)}
    for noted in (noted for raw in raws.values() for noted in raw.noted):
        findings.add(noted.code, noted.first, noted.count, noted.note)
    categories = join_categories(raws, findings)
    splits: dict[str, SplitIndex] = {}
    for split in sorted(raws):
        own = findings.apart()
        try:
            splits[split] = _read_split(raws[split], sources.images[split], categories, own, apply_orientation)
            if split in sources.with_boxes:
                if not splits[split].boxes:
                    # Why none is left says more than that none is.
                    own.check()
                refuse_no_boxes(raws[split].where, split, splits[split])
        except InputError as error:
            if split in sources.required:
                raise
            splits.pop(split, None)
            findings.add("split_left_out", f"split {split!r}: {error}")
            continue
        findings.join(own.found())
    return Annotations(categories.names, categories.ids, splits, categories.texts)


def note_classes(classes: Sequence[str], splits: Mapping[str, SplitIndex], findings: Findings) -> None:
    """Note classes without boxes, and those of only one of train and val; crowds are not counted."""
    counts = {
        split: np.bincount(index.box_class[~index.box_crowd], minlength=len(classes)) for split, index in splits.items()
    }
    total = np.sum(list(counts.values()), 0)
    for number in np.flatnonzero(total == 0):
        findings.add("class_without_boxes", f"class {classes[number]!r}")
    if "train" not in counts or "val" not in counts:
        return
    for number in np.flatnonzero((total > 0) & ((counts["train"] == 0) != (counts["val"] == 0))):
        split = "train" if counts["train"][number] else "val"
        findings.add("class_in_one_split", f"class {classes[number]!r} is in {split} alone")


def _is_usable(split: str, raw: RawSplit, sources: Sources, findings: Findings) -> bool:
    """Refuse a split without annotations, or note it where it is optional."""
    if raw.has_annotations:
        return True
    if split in sources.required:
        raise InputError(f"{raw.where}: not COCO: key 'annotations' is missing; export COCO instances annotations")
    findings.add("split_without_annotations", raw.where, len(raw.images.ids))
    return True


def refuse_no_boxes(where: str, split: str, index: SplitIndex) -> None:
    """Refuse a split in which no box is an object to train on: no boxes, or crowds alone.

    Raises:
        InputError: It has none; the message says why where that is known.
    """
    if index.boxes and not index.box_crowd.all():
        return
    why = ""
    if index.boxes:
        why = f": all {index.boxes} have iscrowd 1, as masks of a brush tool are exported; write iscrowd 0 for objects"
    raise InputError(f"{where}: split {split!r} has no boxes (crowds not counted){why or '; annotate some objects'}")


@dataclass(frozen=True, eq=False)
class _Images:
    """The images of a split, in file order; ``record`` maps each record of the file to its image."""

    ids: NDArray[np.int64]
    keys: list[str] | None
    names: list[str]
    size: NDArray[np.int64]
    record: NDArray[np.int64]


def _read_split(
    raw: RawSplit, files: FileNames, categories: Categories, findings: Findings, apply_orientation: bool
) -> SplitIndex:
    images = _read_images(raw, files, findings, apply_orientation)
    boxes = raw.boxes
    place = places_of(boxes.image_ids, raw.images.ids)
    bad = [i for i, value in enumerate(boxes.image_ids) if place[i] < 0 and not isinstance(value, str | int | float)]
    refuse(
        bad,
        lambda i: (
            f"{raw.where}: annotation {boxes.ids[i]} has image_id {shown(boxes.image_ids[i])}, which is not an id"
        ),
        "name an image",
    )
    classes = categories.classes_of(boxes.category_ids)
    known = (
        f"the categories are {', '.join(map(str, categories.keys[:10]))}{' ...' if len(categories.keys) > 10 else ''}"
    )
    refuse(
        np.flatnonzero(classes < 0),
        lambda i: f"{raw.where}: annotation {boxes.ids[i]} has the unknown category_id {shown(boxes.category_ids[i])}",
        known,
    )
    image = np.where(place >= 0, images.record[place], -1) if len(place) else place
    checked = read_boxes(boxes, image, classes, ImagesOfBoxes(raw.where, images.names, images.size), findings)
    return _sorted_index(images, checked)


def _read_images(raw: RawSplit, files: FileNames, findings: Findings, apply_orientation: bool) -> _Images:
    table, where = raw.images, raw.where
    if not len(table.ids):
        raise InputError(f"{where}: 'images' is empty; a split needs at least one image")
    keys = read_keys(table.ids, lambda i: f"{where}: images[{i}] has id {shown(table.ids[i])}")
    findings.add_cases("number_as_text", keys.mended, lambda i: f"{where}: images[{i}] has id {shown(table.ids[i])}")
    if keys.texts is not None:
        findings.add("id_as_text", f"{where}: images[0] has id {shown(table.ids[0])}", len(keys.texts))
    names = _file_names(raw, files, findings)
    first, record = _merged(raw, keys.numbers, names, findings)
    kept_names = [names[i] for i in first]
    size = _sizes(raw, first, kept_names, files, findings, apply_orientation)
    texts = [keys.texts[i] for i in first] if keys.texts is not None else None
    return _Images(keys.numbers[first], texts, kept_names, size, record)


def _file_names(raw: RawSplit, files: FileNames, findings: Findings) -> list[str]:
    """Return for each record the path of its file; one that is missing keeps its name."""
    ids, names = raw.images.ids, raw.images.names
    refuse(
        [i for i, name in enumerate(names) if not is_file_name(name)],
        lambda i: f"{raw.where}: image {ids[i]} has the file_name {shown(names[i])}, which is not a file name",
        "name a file of the folder",
    )
    matches: list[NameMatch] = [files.match(name) for name in names]
    refuse(
        [i for i, match in enumerate(matches) if match.leaves],
        lambda i: f"{raw.where}: image {ids[i]} has the file_name {names[i]!r}, which leaves the folder",
        f"file names must be relative to {files.folder} and stay in it",
    )
    near = [i for i, match in enumerate(matches) if match.is_near]
    findings.add_cases(
        "name_near",
        near,
        lambda i: f"{raw.where}: image {ids[i]} has the file_name {names[i]!r}, the file is {matches[i].path!r}",
    )
    return [match.path for match in matches]


def _merged(
    raw: RawSplit, numbers: NDArray[np.int64], names: list[str], findings: Findings
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Join records of the same file; return the first record of each image, and the image of each record."""
    ids = raw.images.ids
    order: dict[str, int] = {}
    record = np.array([order.setdefault(name, len(order)) for name in names], np.int64)
    first = np.unique(record, return_index=True)[1]
    sizes = list(zip(raw.images.widths, raw.images.heights, strict=True))
    repeated = duplicates(record)

    def describe(i: int) -> str:
        return (
            f"{raw.where}: images {ids[first[record[i]]]} and {ids[i]} have the same file_name {raw.images.names[i]!r}"
        )

    others = [int(i) for i in repeated if sizes[i] != sizes[first[record[i]]]]
    refuse(others, lambda i: f"{describe(i)} and other sizes", "list each file once")
    findings.add_cases("image_listed_twice", repeated, describe)
    # An id stands for one file.
    same_id = [int(i) for i in duplicates(numbers) if record[i] != record[np.flatnonzero(numbers == numbers[i])[0]]]
    refuse(same_id, lambda i: f"{raw.where}: image id {ids[i]} is used twice (images[{i}])", "make ids unique")
    return first, record


def _sizes(
    raw: RawSplit,
    first: NDArray[np.int64],
    names: list[str],
    files: FileNames,
    findings: Findings,
    apply_orientation: bool,
) -> NDArray[np.int64]:
    """Return width and height (I, 2): of the annotations, or of the file where these do not say it."""
    where, ids = raw.where, raw.images.ids
    columns = [[column[i] for i in first] for column in (raw.images.widths, raw.images.heights)]
    numbers = [whole_numbers(column) for column in columns]
    size = np.stack([found.values for found in numbers], 1)

    def describe(i: int) -> str:
        width, height = (column[i] for column in columns)
        if width is None and height is None:
            return f"{where}: image {ids[first[i]]} has no size"
        return f"{where}: image {ids[first[i]]} has the size {shown(width)} x {shown(height)}"

    unknown = np.flatnonzero(((size <= 0) | (size > _LARGEST_SIDE)).any(1))
    mended = np.setdiff1d(np.union1d(numbers[0].mended, numbers[1].mended), unknown)
    findings.add_cases("number_as_text", mended, describe)
    findings.add_cases("size_unknown", unknown, describe)
    for i in unknown:
        # A file that cannot be read is reported when images are checked; until then it may have any size.
        size[i] = size_of_file(files.folder / names[i], apply_orientation) or (_LARGEST_SIDE, _LARGEST_SIDE)
    return size


def _sorted_index(images: _Images, boxes: Boxes) -> SplitIndex:
    """Order images by file name, and boxes by image, then id."""
    order = np.array(sorted(range(len(images.names)), key=images.names.__getitem__), np.int64)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    image = rank[boxes.image]
    box_order = np.lexsort((boxes.ids, image))
    start = np.zeros(len(order) + 1, np.int64)
    np.cumsum(np.bincount(image, minlength=len(order)), out=start[1:])
    return SplitIndex(
        image_id=images.ids[order],
        image_key=[images.keys[i] for i in order] if images.keys is not None else None,
        file_name=[images.names[i] for i in order],
        width=images.size[order, 0].astype(np.int32),
        height=images.size[order, 1].astype(np.int32),
        box_start=start,
        box_id=boxes.ids[box_order],
        box_class=boxes.classes[box_order].astype(np.int32),
        box_xywh=np.ascontiguousarray(boxes.xywh[box_order]),
        box_area=boxes.area[box_order],
        box_crowd=boxes.crowd[box_order],
    )
