"""Checks the annotations of a data set, corrects faults that are safe to correct, and makes the index of each split."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import orjson

from kubeyolo.arrays import Int64Array
from kubeyolo.data.box_forms import FORMS
from kubeyolo.data.boxes import Boxes, ImagesOfBoxes, read_boxes
from kubeyolo.data.categories import Categories, join_categories
from kubeyolo.data.columns import plain, positions_of, read_keys, refuse, shown, whole_numbers
from kubeyolo.data.file_names import FileNames, NameMatch, is_file_name
from kubeyolo.data.findings import Findings
from kubeyolo.data.headers import size_of_file
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.raw import RawSplit
from kubeyolo.errors import InputError

_LARGEST_SIDE = 1 << 30
_LEAVE_OUT = frozenset({"image_unknown", "box_empty", "box_absent", "box_not_finite", "shape_without_box"})
"""Codes of findings for which boxes are left out."""


@dataclass(frozen=True)
class Annotations:
    """The checked annotations of all splits; classes are ordered by category id."""

    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    splits: dict[str, SplitIndex]
    category_keys: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Sources:
    """The inputs from which a data set is read.

    Attributes:
        raws: The tables of each split.
        images: The files in the image folder of each split.
        required: Splits that must be usable; any other split with a fault is left out.
        with_boxes: Splits that must have boxes.
    """

    raws: Mapping[str, RawSplit]
    images: Mapping[str, FileNames]
    required: Collection[str]
    with_boxes: Collection[str]


def check_annotations(sources: Sources, findings: Findings, apply_orientation: bool = True) -> Annotations:
    """Check the annotations of all splits; an image file is opened only if the annotations do not have its size.

    Args:
        sources: Tables and image folders.
        findings: Collects the findings; the caller then refuses the data set if an action is ``refuse``.
        apply_orientation: Whether sizes from image files are the sizes after EXIF rotation.

    Raises:
        InputError: A table has a fault that cannot be corrected, a required split has no boxes, or a class has
            different ids in different splits.
    """
    for split, raw in sources.raws.items():
        if raw.has_annotations:
            continue
        if split in sources.required:
            raise InputError(f"{raw.where}: not COCO: key 'annotations' is missing; export COCO instances annotations")
        findings.add("split_without_annotations", raw.where, len(raw.images.ids))
    raws = sources.raws
    while True:
        own = findings.empty_copy()
        raws = _with_equal_classes(raws, sources, findings)
        categories = join_categories(raws, own)
        read = {}
        for split in sorted(raws):
            result = _read_usable_split(split, raws[split], sources, categories, findings, apply_orientation)
            if result is not None:
                read[split] = result
        if len(read) == len(raws):
            break
        # Classes that appear only in a left-out split do not belong to the data set.
        raws = {split: raw for split, raw in raws.items() if split in read}
    read = _in_one_form(read, raws, sources, categories, apply_orientation)
    findings.extend(finding for raw in raws.values() for finding in raw.findings)
    findings.extend(own.all())
    for _, others in read.values():
        findings.extend(others.all())
    splits = {split: index for split, (index, _) in read.items()}
    return Annotations(categories.names, categories.ids, splits, categories.texts)


def _with_equal_classes(raws: Mapping[str, RawSplit], sources: Sources, findings: Findings) -> dict[str, RawSplit]:
    """Return the splits; leave out optional splits whose categories are faulty or conflict with other splits."""
    kept = {split: raw for split, raw in raws.items() if split in sources.required}
    for split in sorted(set(raws) - set(kept)):
        try:
            join_categories({**kept, split: raws[split]}, findings.empty_copy())
        except InputError as error:
            if not kept:
                raise
            findings.add("split_left_out", f"split {split!r}: {error}")
            continue
        kept[split] = raws[split]
    return kept


_Read = tuple[SplitIndex, Findings]


def _read_usable_split(
    split: str,
    raw: RawSplit,
    sources: Sources,
    categories: Categories,
    findings: Findings,
    apply_orientation: bool,
    assumed: str = "",
) -> _Read | None:
    """Return the index and the findings of a split, or None if it is optional and left out because of a fault."""
    own = findings.empty_copy()
    try:
        index = _read_split(raw, sources.images[split], categories, own, apply_orientation, assumed)
        if split in sources.with_boxes:
            refuse_no_boxes(raw.where, split, index, own)
        if split not in sources.required:
            own.check()
    except InputError as error:
        if split in sources.required:
            raise
        findings.add("split_left_out", f"split {split!r}: {error}")
        return None
    return index, own


def _in_one_form(
    read: dict[str, _Read],
    raws: Mapping[str, RawSplit],
    sources: Sources,
    categories: Categories,
    apply_orientation: bool,
) -> dict[str, _Read]:
    """Read small splits again with the box form of a larger split, if they have too few boxes to recognize their own.

    This is done only if the action for that form in the configuration is ``mend``.
    """
    codes = {split: {each.code for each in own.all() if each.action == "mend"} for split, (_, own) in read.items()}
    assumed = next((form for form in FORMS if any(form in found for found in codes.values())), "")
    result = dict(read)
    for split, (_, own) in read.items():
        if assumed and not codes[split].intersection(FORMS):
            again = _read_usable_split(
                split, raws[split], sources, categories, own.empty_copy(), apply_orientation, assumed
            )
            result[split] = again or read[split]
    return result


def note_classes(classes: Sequence[str], splits: Mapping[str, SplitIndex], findings: Findings) -> None:
    """Add findings about classes without boxes, or with boxes in only one of train and val; crowds are ignored."""
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
        findings.add("class_in_one_split", f"class {classes[number]!r} is only in {split}")


def refuse_no_boxes(where: str, split: str, index: SplitIndex, findings: Findings | None = None) -> None:
    """Refuse a split that has no boxes, or only crowds: there is nothing to train on.

    Args:
        where: The file or folder of the split, for the message.
        split: Its name.
        index: Its boxes.
        findings: The findings of the split. A finding with the action ``refuse`` is raised as an error; otherwise the
            message names the findings for which boxes were left out.

    Raises:
        InputError: The split has no box to train on; the message has the reason if it is known.
    """
    if index.boxes and not index.box_crowd.all():
        return
    if findings is not None:
        findings.check()
    why = "; annotate some objects"
    if index.boxes:
        why = f": all {index.boxes} have iscrowd 1, which tools export for brush masks; write iscrowd 0 for objects"
    elif findings is not None:
        left_out = [each.words() for each in findings.all() if each.code in _LEAVE_OUT]
        why = f"; {', '.join(left_out)}" if left_out else why
    raise InputError(f"{where}: split {split!r} has no boxes (crowds not counted){why}")


def _note_texts(raw: RawSplit, findings: Findings) -> None:
    """Add findings about image and category ids in annotations that are written as text or as floats (7.0)."""
    for key, column in (("image_id", raw.boxes.image_ids), ("category_id", raw.boxes.category_ids)):
        mended = whole_numbers(column).mended
        if len(mended):
            first = int(mended[0])
            label = f"{raw.where}: annotation {plain(raw.boxes.ids[first])}"
            findings.add("number_as_text", f"{label} has the {key} {shown(column[first])}", len(mended))


@dataclass(frozen=True, eq=False)
class _Images:
    """The images of a split, in file order; ``record`` maps each record of the file to its image."""

    ids: Int64Array
    keys: list[str] | None
    names: list[str]
    size: Int64Array
    record: Int64Array
    facts: list[str] | None = None


def _read_split(
    raw: RawSplit, files: FileNames, categories: Categories, findings: Findings, apply_orientation: bool, assumed: str
) -> SplitIndex:
    images = _read_images(raw, files, findings, apply_orientation)
    boxes = raw.boxes
    position = positions_of(boxes.image_ids, raw.images.ids)
    bad = [i for i, value in enumerate(boxes.image_ids) if position[i] < 0 and not isinstance(value, str | int | float)]
    refuse(
        bad,
        lambda i: (
            f"{raw.where}: annotation {plain(boxes.ids[i])} has image_id {shown(boxes.image_ids[i])}, "
            "which is not an id"
        ),
        "name an image",
    )
    classes = categories.classes_of(boxes.category_ids)
    remedy = (
        f"the categories are {', '.join(map(str, categories.keys[:10]))}{' ...' if len(categories.keys) > 10 else ''}"
    )
    refuse(
        np.flatnonzero(classes < 0),
        lambda i: (
            f"{raw.where}: annotation {plain(boxes.ids[i])} has the unknown category_id {shown(boxes.category_ids[i])}"
        ),
        remedy,
    )
    image = np.where(position >= 0, images.record[position], -1) if len(position) else position
    _note_texts(raw, findings)
    checked = read_boxes(boxes, image, classes, ImagesOfBoxes(raw.where, images.names, images.size), findings, assumed)
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
    texts = [keys.texts[i] for i in first] if keys.texts is not None else None
    facts = [orjson.dumps(table.facts[i]).decode() for i in first] if table.facts is not None else None
    images = _Images(keys.numbers[first], texts, kept_names, np.zeros((len(first), 2), np.int64), record, facts)
    return replace(images, size=_sizes(raw, images, files, findings, apply_orientation))


def _file_names(raw: RawSplit, files: FileNames, findings: Findings) -> list[str]:
    """Return for each record the path of its file, or the name as written if the file is missing."""
    ids, names = raw.images.ids, raw.images.names
    refuse(
        [i for i, name in enumerate(names) if not is_file_name(name)],
        lambda i: f"{raw.where}: image {plain(ids[i])} has the file_name {shown(names[i])}, which is not a file name",
        "name a file of the folder",
    )
    matches: list[NameMatch] = [files.match(name) for name in names]
    refuse(
        [i for i, match in enumerate(matches) if match.leaves],
        lambda i: f"{raw.where}: image {plain(ids[i])} has the file_name {names[i]!r}, which is outside the folder",
        f"file names must be relative to {files.folder}, without '..'",
    )
    near = [i for i, match in enumerate(matches) if match.is_near]
    findings.add_cases(
        "name_near",
        near,
        lambda i: f"{raw.where}: image {plain(ids[i])} has the file_name {names[i]!r}, the file is {matches[i].path!r}",
    )
    return [match.path for match in matches]


def _merged(raw: RawSplit, numbers: Int64Array, names: list[str], findings: Findings) -> tuple[Int64Array, Int64Array]:
    """Merge records of the same file; return the record that is kept for each image, and the image of each record."""
    ids = raw.images.ids
    order: dict[str, int] = {}
    record = np.array([order.setdefault(name, len(order)) for name in names], np.int64)
    # The record with the lowest id is kept, whatever the order in the file.
    by_id = np.lexsort((numbers, record))
    first = by_id[np.unique(record[by_id], return_index=True)[1]]
    repeated = np.setdiff1d(np.arange(len(record)), first)
    findings.add_cases("image_listed_twice", repeated, lambda i: f"{raw.where}: {_pair(raw, first[record[i]], i)}")
    # An id may belong to only one file.
    _, firsts, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    refuse(
        np.flatnonzero(record != record[firsts[inverse]]),
        lambda i: f"{raw.where}: image id {plain(ids[i])} is used twice (images[{i}])",
        "make ids unique",
    )
    return first, record


def _is_not_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _pair(raw: RawSplit, i: int, j: int) -> str:
    ids = raw.images.ids
    return f"images {plain(ids[i])} and {plain(ids[j])} have the same file_name {raw.images.names[j]!r}"


def _sizes(raw: RawSplit, images: _Images, files: FileNames, findings: Findings, apply_orientation: bool) -> Int64Array:
    """Return width and height (I, 2) from the annotations, or from the image file if the annotations have no size."""
    columns = (raw.images.widths, raw.images.heights)
    numbers = [whole_numbers(column) for column in columns]
    listed = np.stack([found.values for found in numbers], 1)
    is_known = ((listed > 0) & (listed <= _LARGEST_SIDE)).all(1)

    def describe(i: int) -> str:
        width, height = (column[i] for column in columns)
        size = "no size" if width is None and height is None else f"the size {shown(width)} x {shown(height)}"
        return f"{raw.where}: image {plain(raw.images.ids[i])} has {size}"

    refuse(
        [int(i) for i in np.flatnonzero(~is_known) if any(_is_not_finite(column[i]) for column in columns)],
        describe,
        "write the size of the image in pixels, or leave it out",
    )
    best = np.lexsort((~is_known, images.record))
    best = best[np.unique(images.record[best], return_index=True)[1]]
    size = listed[best]
    other = np.flatnonzero(is_known & (listed != size[images.record]).any(1))
    refuse(
        other,
        lambda i: f"{raw.where}: {_pair(raw, int(best[images.record[i]]), i)} but different sizes",
        "list each file once",
    )
    unknown = np.flatnonzero(~is_known[best])
    mended = np.union1d(numbers[0].mended, numbers[1].mended)
    findings.add_cases("number_as_text", mended[is_known[mended]], describe)
    findings.add_cases("size_unknown", best[unknown], describe)
    for i in unknown:
        # A file that cannot be read is reported when images are checked; until then it may have any size.
        size[i] = size_of_file(files.folder / images.names[i], apply_orientation) or (_LARGEST_SIDE, _LARGEST_SIDE)
    return size


def _sorted_index(images: _Images, boxes: Boxes) -> SplitIndex:
    """Sort images by file name, and boxes by image and id; boxes without ids by class, position, crowd and area."""
    order = np.array(sorted(range(len(images.names)), key=images.names.__getitem__), np.int64)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    image = rank[boxes.image]
    if boxes.has_ids:
        box_order = np.lexsort((boxes.ids, image))
    else:
        box_order = np.lexsort((boxes.area, boxes.crowd, *boxes.xywh.T[::-1], boxes.classes, image))
    start = np.zeros(len(order) + 1, np.int64)
    np.cumsum(np.bincount(image, minlength=len(order)), out=start[1:])
    return SplitIndex(
        image_id=images.ids[order],
        image_key=[images.keys[i] for i in order] if images.keys is not None else None,
        image_facts=[images.facts[i] for i in order] if images.facts is not None else None,
        file_name=[images.names[i] for i in order],
        width=images.size[order, 0].astype(np.int32),
        height=images.size[order, 1].astype(np.int32),
        box_start=start,
        box_id=boxes.ids[box_order] if boxes.has_ids else np.arange(1, len(box_order) + 1, dtype=np.int64),
        box_class=boxes.classes[box_order].astype(np.int32),
        box_xywh=np.ascontiguousarray(boxes.xywh[box_order]),
        box_area=boxes.area[box_order],
        box_crowd=boxes.crowd[box_order],
    )
