"""MindSpore's ``.ckpt``: protocol buffers of named tensors, read without MindSpore.

A file is a sequence of values (field 1), each with a tag (field 1, text) and a tensor (field 2) of dimensions
(field 1), type (field 2, text) and content (field 3). Large tensors are stored in slices with the same tag. A file may
end with the text ``crc_num`` and the CRC-32 of all bytes before it, as ten bytes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from kubeyolo.errors import InputError, one_line
from kubeyolo.weights.stored_array import ITEM_SIZES, Content, StoredArray

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_CRC_NAME, _CRC_DIGITS = b"crc_num", 10
_MAX_TEXT = 256
_MAX_RANK = 16
_MAX_TENSORS = 100_000
_MAX_PARTS = 1_000_000
_SHOWN = 80
# A value, its length, a tag, and its length: names of parameters have fewer than 128 bytes.
_FIRST_VALUE = re.compile(rb"\x0a[\x80-\xff]{0,9}[\x00-\x7f]\x0a([\x01-\x7f])", re.DOTALL)


@dataclass
class _Tensor:
    shape: tuple[int, ...] = ()
    dtype: str = ""
    parts: list[tuple[int, int]] = field(default_factory=list)


def is_mindspore_checkpoint(head: bytes) -> bool:
    """Tell from its first bytes whether a file is a MindSpore checkpoint: it starts with a value whose tag is text."""
    match = _FIRST_VALUE.match(head)
    if match is None:
        return False
    tag = head[match.end() : match.end() + match[1][0]]
    return len(tag) == match[1][0] and tag.isascii() and tag.decode("ascii").isprintable()


def read_mindspore_checkpoint(path: Path) -> dict[str, StoredArray]:
    """Return the arrays of a MindSpore checkpoint by parameter name, unread.

    Values that are not arrays of numbers, such as text, are left out.

    Raises:
        InputError: The file is damaged or encrypted, has a wrong checksum, or a tensor's size does not match its shape.
    """
    tensors: dict[str, _Tensor] = {}
    try:
        with path.open("rb") as file:
            end = _checked_end(path, file)
            file.seek(0)
            parts = 0
            while file.tell() < end:
                parts += _read_value(file, end, tensors)
                if len(tensors) > _MAX_TENSORS or parts > _MAX_PARTS:
                    raise ValueError(f"more than {_MAX_TENSORS} tensors, or more than {_MAX_PARTS} slices of them")
        arrays = {name: _array(path, name, tensor) for name, tensor in tensors.items() if tensor.dtype in ITEM_SIZES}
    except (ValueError, OverflowError, OSError) as error:
        reason = one_line(error, 200)
        raise InputError(f"{path}: not a readable MindSpore checkpoint ({reason}); get the file again") from error
    return arrays


def _checked_end(path: Path, file: BinaryIO) -> int:
    """Return the offset at which the values end; if a checksum follows them, check it first."""
    size, tail = path.stat().st_size, len(_CRC_NAME) + _CRC_DIGITS
    file.seek(max(size - tail, 0))
    end = file.read(tail)
    if not end.startswith(_CRC_NAME) or len(end) < tail:
        return size
    if Content(path, ((0, size - tail),)).checksum() != int.from_bytes(end[len(_CRC_NAME) :], "big"):
        raise ValueError("its checksum does not match")
    return size - tail


def _read_value(file: BinaryIO, end: int, tensors: dict[str, _Tensor]) -> int:
    """Read a value, and return the number of slices in it."""
    number, wire, length = _field(file, end)
    stop = file.tell() + length
    if number != 1 or wire != _BYTES:
        raise ValueError(f"a value was expected at byte {file.tell()}")
    name, place = "", None
    while file.tell() < stop:
        number, wire, length = _field(file, stop)
        if number == 1 and wire == _BYTES:
            name = _text(file, length)
        else:
            if number == 2 and wire == _BYTES:
                place = (file.tell(), file.tell() + length)
            _skip(file, wire, length)
    slices = 0
    if place is not None:
        file.seek(place[0])
        slices = _read_tensor(file, place[1], tensors.setdefault(name, _Tensor()))
    file.seek(stop)
    return slices


def _skip(file: BinaryIO, wire: int, length: int) -> None:
    if wire != _VARINT:
        file.seek(length, 1)


def _read_tensor(file: BinaryIO, stop: int, tensor: _Tensor) -> int:
    """Read a tensor, or a slice of a large one, and return the number of its slices."""
    shape: list[int] = []
    before = len(tensor.parts)
    while file.tell() < stop:
        number, wire, length = _field(file, stop)
        if number == 1 and wire == _VARINT:
            shape.append(length)
        elif number == 1:
            packed_end = file.tell() + length
            while file.tell() < packed_end and len(shape) <= _MAX_RANK:
                shape.append(_varint(file))
        elif number == 2 and wire == _BYTES:
            tensor.dtype = _text(file, length).lower()
        elif number == 3 and wire == _BYTES:
            tensor.parts.append((file.tell(), length))
            file.seek(length, 1)
        else:
            _skip(file, wire, length)
        if len(shape) > _MAX_RANK or len(tensor.parts) - before > _MAX_PARTS:
            raise ValueError(f"a tensor has more than {_MAX_RANK} dimensions, or more than {_MAX_PARTS} slices")
    tensor.shape = tuple(shape)
    return len(tensor.parts) - before


def _array(path: Path, name: str, tensor: _Tensor) -> StoredArray:
    length = sum(size for _, size in tensor.parts)
    item = ITEM_SIZES[tensor.dtype]
    shape = tensor.shape
    if shape in ((), (0,)) and length == item:
        # A scalar is written with the dimension 0.
        shape = ()
    if math.prod(shape) * item != length:
        raise ValueError(
            f"{name[:_SHOWN]!r} has {length} bytes, which do not fit shape {shape} and type {tensor.dtype}"
        )
    return StoredArray(Content(path, tuple(tensor.parts)), tensor.dtype, shape)


def _field(file: BinaryIO, stop: int) -> tuple[int, int, int]:
    """Return the number and wire type of the next field, and its length, or its value if it is a varint."""
    key = _varint(file)
    number, wire = key >> 3, key & 7
    if wire not in (_VARINT, _FIXED64, _BYTES, _FIXED32):
        raise ValueError(f"unknown wire type {wire} at byte {file.tell()}")
    if wire in (_FIXED64, _FIXED32):
        return number, wire, 8 if wire == _FIXED64 else 4
    value = _varint(file)
    if wire == _BYTES and file.tell() + value > stop:
        raise ValueError(f"a field at byte {file.tell()} claims {value} bytes")
    return number, wire, value


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it is cut off")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("an integer has more than 64 bits")


def _text(file: BinaryIO, length: int) -> str:
    if length > _MAX_TEXT:
        raise ValueError(f"a name has {length} bytes, at most {_MAX_TEXT} are allowed")
    return file.read(length).decode()
