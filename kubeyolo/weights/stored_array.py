"""Arrays that stay in their file until they are read, one at a time: weights are never in memory twice."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kubeyolo.arrays import AnyArray, Float32Array
from kubeyolo.errors import InputError
from kubeyolo.zip_members import DamagedArchive, Member, inflated

ITEM_SIZES: Mapping[str, int] = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
"""Bytes per element of each type in files of weights."""

_PIECE = 1 << 20
_CHANGED = "the file changed while it was read; run the command again"
_FLOATS = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Content:
    """Bytes in parts of a file, in order.

    Attributes:
        path: The file.
        parts: Offset and length of each part within the file.
    """

    path: Path
    parts: tuple[tuple[int, int], ...]

    @property
    def length(self) -> int:
        """Number of bytes."""
        return sum(length for _, length in self.parts)

    def read(self, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start`` on.

        Raises:
            InputError: The file has become shorter since it was opened.
        """
        pieces, missing = [], length
        with self.path.open("rb") as file:
            for offset, size in self.parts:
                if start < size and missing:
                    count = min(size - start, missing)
                    file.seek(offset + start)
                    pieces.append(file.read(count))
                    missing -= count
                start = max(start - size, 0)
        if sum(map(len, pieces)) != length:
            raise InputError(f"{self.path}: {_CHANGED}")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def checksum(self) -> int:
        """Return the CRC-32 of the bytes, read in pieces."""
        checksum = 0
        for start in range(0, self.length, _PIECE):
            checksum = zlib.crc32(self.read(start, min(_PIECE, self.length - start)), checksum)
        return checksum


@dataclass(frozen=True)
class DeflatedContent:
    """Bytes of a deflated member of an archive, inflated whenever they are read, so that they are never all in memory.

    Attributes:
        path: The archive.
        member: The member.
    """

    path: Path
    member: Member

    @property
    def length(self) -> int:
        """Number of bytes after inflation."""
        return self.member.size

    def read(self, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start`` on.

        Raises:
            InputError: The file has changed since it was opened.
        """
        content, at = bytearray(), 0
        try:
            with self.path.open("rb") as file:
                for piece in inflated(file, self.member):
                    content += piece[max(start - at, 0) : max(start + length - at, 0)]
                    at += len(piece)
                    if len(content) == length:
                        break
        except DamagedArchive as error:
            raise InputError(f"{self.path}: {_CHANGED}") from error
        return bytes(content)


@dataclass(frozen=True)
class StoredArray:
    """An array in a file; its elements are ``strides`` apart, from element ``first`` on.

    Attributes:
        content: Little-endian elements.
        dtype: A key of :data:`ITEM_SIZES`.
        shape: Lengths of the axes.
        strides: Distance between neighbours on each axis, in elements, at least 0; None for C order.
        first: Index of the first element.
    """

    content: Content | DeflatedContent
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    first: int = 0

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def span(self) -> int:
        """Number of elements of the content from the first to the last element of the array."""
        if self.size == 0:
            return 0
        if self.strides is None:
            return self.size
        return 1 + sum((length - 1) * stride for length, stride in zip(self.shape, self.strides, strict=True))

    def float32(self) -> Float32Array:
        """Read the array as float32 in C order.

        Raises:
            InputError: The elements are not floating point numbers.
        """
        if self.dtype not in _FLOATS:
            raise InputError(
                f"{self.content.path}: an array of {self.dtype} does not hold weights; export the model without "
                "quantization"
            )
        item = ITEM_SIZES[self.dtype]
        data = self.content.read(self.first * item, self.span * item)
        if self.dtype == "bfloat16":
            # bfloat16 is the upper half of a float32.
            flat = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            flat = np.frombuffer(data, np.dtype(self.dtype).newbyteorder("<"))
        if self.strides is None:
            values = flat.reshape(self.shape)
        else:
            steps = tuple(stride * flat.itemsize for stride in self.strides)
            values = np.lib.stride_tricks.as_strided(flat, self.shape, steps, writeable=False)
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(values, dtype=np.float32)


WeightArray = StoredArray | AnyArray
"""An array in a file or in memory."""


def as_float32(array: WeightArray) -> Float32Array:
    """Return an array in a file or in memory as float32 in C order."""
    return array.float32() if isinstance(array, StoredArray) else np.ascontiguousarray(array, dtype=np.float32)
