"""Reads numpy's ``.npz`` files: arrays of numbers only, whose headers are compared with their sizes first.

A file is a ZIP archive of ``.npy`` members. Each has a magic number, a version, the length of a header, the header
(a Python dictionary as text), and the elements (numpy.lib.format).
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Collection
from pathlib import Path

import numpy as np

from kubeyolo.arrays import AnyArray
from kubeyolo.regular_files import open_regular
from kubeyolo.zip_members import DamagedArchive, inflated, read_members, shown

_MAGIC = b"\x93NUMPY"
_LENGTHS = {1: "<H", 2: "<I", 3: "<I"}
_MOST_HEADER = 1 << 12
_SUFFIX = ".npy"
# numpy writes headers in this form only. No text is evaluated, and no object is built.
_HEADER = re.compile(
    rb"\{'descr': '([<|][biuf][1248])', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18}(?:, |,)?){0,8})\), ?\}\s*"
)


def read_npz(path: Path, names: Collection[str] = ()) -> dict[str, AnyArray]:
    """Return the arrays of a ``.npz`` file by name.

    Args:
        path: The file.
        names: Names that are allowed; if empty, all names are.

    Raises:
        InputError: An array would grow too much, is encrypted, or is compressed by a method other than deflate.
        DamagedArchive: The file is not a ``.npz`` file of numbers, an array is not allowed, or a header does not fit
            the size of its array.
        OSError: The file cannot be read.
    """
    arrays = {}
    members = read_members(path)
    wrong = next((m.name for m in members if names and m.name.removesuffix(_SUFFIX) not in names), None)
    if wrong is not None:
        raise DamagedArchive(f"array {shown(wrong)} is not known")
    with open_regular(path) as file:
        for member in members:
            front = next(inflated(file, member), b"")
            dtype, shape, is_fortran, start = _header(member.name, front)
            if start + math.prod(shape) * dtype.itemsize != member.size:
                raise DamagedArchive(
                    f"array {shown(member.name)} claims the shape {shape}, which does not fit its size"
                )
            content = bytearray(member.size)
            at = 0
            for piece in inflated(file, member):
                content[at : at + len(piece)] = piece
                at += len(piece)
            flat = np.frombuffer(content, dtype, offset=start)
            arrays[member.name.removesuffix(_SUFFIX)] = flat.reshape(shape, order="F" if is_fortran else "C")
    return arrays


def _header(name: str, front: bytes) -> tuple[np.dtype[np.generic], tuple[int, ...], bool, int]:
    """Return type, shape, whether the first axis varies fastest, and the offset of the elements."""
    version = front[6] if front.startswith(_MAGIC) and len(front) > 12 else 0
    if version not in _LENGTHS:
        raise DamagedArchive(f"{shown(name)} is not an array of numpy")
    (length,) = struct.unpack_from(_LENGTHS[version], front, 8)
    start = 8 + struct.calcsize(_LENGTHS[version]) + length
    match = _HEADER.fullmatch(front[start - length : start]) if length <= _MOST_HEADER else None
    if match is None or start > len(front):
        raise DamagedArchive(f"array {shown(name)} is not an array of numbers, or its header is damaged")
    try:
        dtype = np.dtype(match[1].decode())
    except TypeError as error:
        raise DamagedArchive(f"array {shown(name)} has an unknown type") from error
    shape = tuple(int(side) for side in re.findall(rb"\d+", match[3]))
    return dtype, shape, match[2] == b"True", start
