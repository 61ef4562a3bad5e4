"""Reads COCO JSON; only the fields that are used are decoded, so large files take little time and memory.

A file that follows the format is decoded into typed records. Any other file (ids as text, absent sizes, NaN) is
decoded again without types; :mod:`kubeyolo.data.annotations` then corrects or refuses such values.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from kubeyolo.config.text_file import decode_text
from kubeyolo.data.boxes import is_without_box
from kubeyolo.data.columns import refuse
from kubeyolo.data.layouts.tree import read_errors
from kubeyolo.data.raw import RawBoxes, RawCategories, RawImages, RawSplit
from kubeyolo.documents import NotJson, read_json
from kubeyolo.errors import InputError
from kubeyolo.file_kinds import kind_of
from kubeyolo.regular_files import ANNOTATIONS_SIZE, open_regular

_BOX = tuple[float, float, float, float]
_EXPORT = "export COCO instances annotations"
_AGAIN = "export the annotations as COCO JSON again"
_HEAD = 1 << 16
_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str
    width: int
    height: int


class _Annotation(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    bbox: _BOX
    area: float | None = None
    iscrowd: int = 0


class _Document(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[dict[str, Any]]


class _AnyAnnotation(msgspec.Struct, gc=False):
    id: Any = None
    image_id: Any = msgspec.UNSET
    category_id: Any = msgspec.UNSET
    bbox: Any = None
    area: Any = None
    iscrowd: Any = None
    segmentation: msgspec.Raw = msgspec.Raw()


class _AnyDocument(msgspec.Struct):
    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    annotations: list[_AnyAnnotation] | msgspec.UnsetType = msgspec.UNSET


def read_coco_json(path: Path, group_key: str = "", fact_keys: Sequence[str] = ()) -> RawSplit:
    """Read the tables of a COCO "instances" file; the segmentation of an annotation is read only if it has no box.

    Args:
        path: The file; UTF-8, or UTF-16 or UTF-32 with a byte order mark.
        group_key: The key whose value groups the images; if empty, images are not grouped.
        fact_keys: Further keys of the images whose values are read.

    Raises:
        InputError: The file cannot be read, or is not text, not JSON, or not COCO.
    """
    data = _utf8(path)
    if not group_key and not fact_keys:
        try:
            document = msgspec.json.decode(data, type=_Document)
            # An annotation with a box of zeros may have a mask, which typed records leave out.
            if not any(not any(each.bbox) for each in document.annotations):
                return _typed(str(path), document)
        except msgspec.ValidationError:
            pass
        except _FAULTS:
            return _untyped(path, data, group_key, fact_keys)
    try:
        loose = msgspec.json.decode(data, type=_AnyDocument)
    except _FAULTS:
        return _untyped(path, data, group_key, fact_keys)
    return _loose(path, loose, group_key, fact_keys)


def _utf8(path: Path) -> bytes:
    """Return the text of a file as UTF-8 without a byte order mark."""
    with read_errors(path):
        if not path.exists():
            raise InputError(f"{path}: no such annotation file; expected annotations/<split>.json")
        with open_regular(path, ANNOTATIONS_SIZE) as file:
            head = file.read(_HEAD)
            if head and not head.strip(b"\0"):
                # A sparse file may be larger than the memory.
                raise InputError(f"{path}: starts with {len(head)} zero bytes; {_AGAIN}")
            file.seek(0)
            data = file.read()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        return decode_text(data, str(path)).encode()
    return data.removeprefix(codecs.BOM_UTF8)


def _typed(where: str, document: _Document) -> RawSplit:
    images, annotations = document.images, document.annotations
    _require(Path(where), "categories", document.categories, "id", "name")
    return RawSplit(
        where,
        _categories(document.categories),
        RawImages(
            ids=[each.id for each in images],
            names=[each.file_name for each in images],
            widths=[each.width for each in images],
            heights=[each.height for each in images],
        ),
        _boxes(annotations, {}),
    )


def _boxes(annotations: Sequence[_Annotation] | Sequence[_AnyAnnotation], masks: dict[int, Any]) -> RawBoxes:
    return RawBoxes(
        ids=[each.id for each in annotations],
        image_ids=[each.image_id for each in annotations],
        category_ids=[each.category_id for each in annotations],
        boxes=[each.bbox for each in annotations],
        areas=[each.area for each in annotations],
        crowds=[each.iscrowd for each in annotations],
        masks=masks,
    )


def _untyped(path: Path, data: bytes, group_key: str, fact_keys: Sequence[str]) -> RawSplit:
    """Read a file that the decoder refuses: accept NaN and Infinity, which Python writes; otherwise raise an error."""
    kind = kind_of(data)
    if kind:
        raise InputError(f"{path}: is {kind}; export the annotations as COCO JSON")
    text = decode_text(data, str(path))
    if not text.strip():
        raise InputError(f"{path}: is empty; {_AGAIN}")
    document = read_json(text, str(path), _AGAIN, ANNOTATIONS_SIZE)
    if not isinstance(document, dict):
        raise InputError(f"{path}: not COCO: the top level is {_kind(document)}, not an object; export COCO instances")
    for key in ("images", "annotations", "categories"):
        if key not in document and key != "annotations":
            raise InputError(f"{path}: not COCO: key {key!r} is missing; {_EXPORT}")
        records = document.get(key, [])
        if not isinstance(records, list):
            raise InputError(f"{path}: not COCO: {key!r} is {_kind(records)}, not a list; export COCO instances")
        for position, record in enumerate(records):
            if not isinstance(record, dict):
                raise InputError(
                    f"{path}: not COCO: {key}[{position}] is {_kind(record)}, not an object; export COCO instances"
                )
    loose = _AnyDocument(document["images"], document["categories"])
    if "annotations" in document:
        fields = _AnyAnnotation.__struct_fields__
        rows = ({key: each[key] for key in fields if key in each} for each in document["annotations"])
        loose.annotations = [_AnyAnnotation(**row) for row in rows]
    return _loose(path, loose, group_key, fact_keys)


def _loose(path: Path, document: _AnyDocument, group_key: str, fact_keys: Sequence[str]) -> RawSplit:
    annotations = [] if document.annotations is msgspec.UNSET else document.annotations
    _require(path, "images", document.images, "file_name", "id")
    _require(path, "categories", document.categories, "id", "name")
    for key in ("image_id", "category_id"):
        absent = [i for i, each in enumerate(annotations) if getattr(each, key) is msgspec.UNSET]
        _refuse_absent(path, "annotations", absent, key)
    masks = {i: _mask(path, each.segmentation) for i, each in enumerate(annotations) if is_without_box(each.bbox)}
    return RawSplit(
        str(path),
        _categories(document.categories),
        _images(document.images, group_key, fact_keys),
        _boxes(annotations, {i: mask for i, mask in masks.items() if mask}),
        document.annotations is not msgspec.UNSET,
    )


def _mask(path: Path, segmentation: Any) -> Any:
    """Return a segmentation, decoded if it is still JSON; None if it is absent."""
    if not isinstance(segmentation, msgspec.Raw):
        return segmentation
    if not len(memoryview(segmentation)):
        return None
    try:
        return msgspec.json.decode(segmentation)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NotJson(str(path), f"not JSON ({error})", _AGAIN) from error


def _images(records: list[dict[str, Any]], group_key: str, fact_keys: Sequence[str]) -> RawImages:
    return RawImages(
        ids=[each["id"] for each in records],
        names=[each["file_name"] for each in records],
        widths=[each.get("width") for each in records],
        heights=[each.get("height") for each in records],
        groups=[each.get(group_key) for each in records] if group_key else None,
        facts=[{key: each[key] for key in fact_keys if key in each} for each in records] if fact_keys else None,
    )


def _categories(records: list[dict[str, Any]]) -> RawCategories:
    return RawCategories(
        ids=[each["id"] for each in records],
        names=[each["name"] for each in records],
        parents=[each.get("supercategory") for each in records],
    )


def _require(path: Path, table: str, records: list[dict[str, Any]], *keys: str) -> None:
    for key in keys:
        _refuse_absent(path, table, [i for i, record in enumerate(records) if key not in record], key)


def _refuse_absent(path: Path, table: str, absent: list[int], key: str) -> None:
    refuse(absent, lambda i: f"{path}: not COCO: {table}[{i}] has no {key!r}", _EXPORT)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
