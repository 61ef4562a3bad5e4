"""The safetensors format: a JSON header, then the arrays. Read and written one array at a time.

The format is described at https://huggingface.co/docs/safetensors: eight bytes with the header's length, the header
with type, shape and offset of each array, then their bytes in C order, little-endian, without gaps.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kubeyolo.errors import InputError, one_line
from kubeyolo.weights.stored_array import ITEM_SIZES, Content, StoredArray, WeightArray, as_float32

_LENGTH = struct.Struct("<Q")
_MAX_HEADER = 4 << 20
"""Largest header in bytes; that of the largest detector has 200,000. Python needs twenty times its size in memory."""

_MAX_RANK = 16
_LARGEST = 1 << 62
_MAX_NAME = 256
_SHOWN = 40
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def is_safetensors(head: bytes, size: int) -> bool:
    """Tell whether a file is a safetensors file, complete or cut off after its header.

    Args:
        head: The first bytes of the file, nine or more.
        size: The file's length in bytes.
    """
    if len(head) <= _LENGTH.size or head[_LENGTH.size : _LENGTH.size + 1] != b"{":
        return False
    (length,) = _LENGTH.unpack(head[: _LENGTH.size])
    return 1 < length < _LARGEST and (length <= size - _LENGTH.size or b'"dtype"' in head or b"__meta" in head)


def read_safetensors(path: Path) -> tuple[dict[str, StoredArray], dict[str, str]]:
    """Return the arrays of a safetensors file, unread, and its metadata.

    Raises:
        InputError: The header is damaged, or does not describe the file's bytes exactly.
    """
    try:
        header, start = _read_header(path)
        metadata = header.pop("__metadata__", None) or {}
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its metadata are not texts")
        longest = max(map(len, header), default=0)
        if longest > _MAX_NAME:
            raise ValueError(f"a name has {longest} characters, at most {_MAX_NAME} are allowed")
        arrays = {name: _array(path, entry, start) for name, entry in header.items()}
        _check_places(path, arrays, start)
    except (ValueError, KeyError, TypeError, RecursionError, MemoryError, OSError) as error:
        reason = one_line(error, 200) or type(error).__name__
        raise InputError(f"{path}: not a readable safetensors file ({reason}); get the file again") from error
    return arrays, metadata


def write_safetensors(path: Path, arrays: Iterable[tuple[str, WeightArray]], metadata: Mapping[str, str]) -> None:
    """Write arrays as float32, sorted by name; only one of them is in memory at a time."""
    entries = sorted(arrays, key=lambda entry: entry[0])
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, array in entries:
        begin, end = end, end + 4 * math.prod(array.shape)
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(_LENGTH.pack(len(text)) + text)
        for _, array in entries:
            file.write(as_float32(array).data)


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size).ljust(_LENGTH.size, b"\0"))
        size = file.seek(0, os.SEEK_END)
        if length > size - _LENGTH.size:
            raise ValueError(f"its header claims {length} bytes, the file has {size}: it is cut off")
        if length > _MAX_HEADER:
            raise ValueError(f"its header has {length} bytes, at most {_MAX_HEADER} are allowed")
        file.seek(_LENGTH.size)
        header = json.loads(file.read(length), object_pairs_hook=_without_duplicates)
    if not isinstance(header, dict):
        raise ValueError("its header is not a dictionary")
    return header, _LENGTH.size + length


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:_SHOWN]!r} occurs twice")
        found[name] = value
    return found


def _array(path: Path, entry: Any, start: int) -> StoredArray:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError("an array needs a type, a shape and two offsets")
    named, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    dtype = _DTYPES.get(named) if isinstance(named, str) else None
    if dtype is None:
        raise ValueError(f"type {named[:_SHOWN]!r} is not known" if isinstance(named, str) else "a type is not text")
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(shape) > _MAX_RANK or len(offsets) != 2:
        raise ValueError(f"a shape is not a list of at most {_MAX_RANK} numbers, or there are not two offsets")
    if not all(type(value) is int and 0 <= value < _LARGEST for value in (*shape, *offsets)):
        raise ValueError("a shape or offset is negative or not an integer, or too large")
    begin, end = offsets
    if end - begin != math.prod(shape) * ITEM_SIZES[dtype]:
        raise ValueError(f"an array {tuple(shape)} of {dtype} claims {end - begin} bytes")
    return StoredArray(Content(path, ((start + begin, end - begin),)), dtype, tuple(shape))


def _check_places(path: Path, arrays: Mapping[str, StoredArray], start: int) -> None:
    end = start
    places = [array.content.parts[0] for array in arrays.values() if isinstance(array.content, Content)]
    for offset, length in sorted(places):
        if offset != end:
            raise ValueError(f"an array starts at byte {offset}, the array before it ends at {end}")
        end = offset + length
    size = path.stat().st_size
    if end != size:
        cut = ": it is cut off" if size < end else ""
        raise ValueError(f"its arrays end at byte {end}, the file at {size}{cut}")
