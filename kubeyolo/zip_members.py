"""Members of ZIP archives whose claims are checked against the file before anything is inflated.

Only stored and deflated members are read. No byte of the file belongs to two members, and neither a member nor the
whole archive may grow more than weights and annotations can.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from kubeyolo.errors import InputError, one_line
from kubeyolo.regular_files import open_regular

MAX_RATIO = 100
"""Largest size of an inflated member, and of all members together, per byte of the archive."""

MAX_INFLATED = 4 << 30
"""Largest total size in bytes of all deflated members."""

_FREE = 1 << 20
"""Bytes to which every archive may grow."""

_MOST_DIRECTORY = 8 << 20
"""Largest central directory in bytes, room for 80,000 members: Python needs ten times its size in memory."""

_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
_CHUNK = 1 << 20
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_END = b"PK\x05\x06"
_END64 = b"PK\x06\x06"
_END_BYTES = 22
_TAIL = (1 << 16) + _END_BYTES + 76
_ENCRYPTED = 1
_SHOWN = 80


class DamagedArchive(ValueError):
    """The archive contradicts itself; the message gives the reason."""


class TooManyMembers(DamagedArchive):
    """The directory of the archive is larger than that of any file of weights or annotations."""


@dataclass(frozen=True)
class Member:
    """A member of an archive.

    Attributes:
        name: Its name.
        start: Offset of its bytes in the file.
        packed: Number of its bytes in the file.
        size: Number of bytes after inflation.
        checksum: CRC-32 of the inflated bytes.
        is_deflated: Whether its bytes are deflated.
    """

    name: str
    start: int
    packed: int
    size: int
    checksum: int
    is_deflated: bool


def read_members(path: Path, most: int = MAX_INFLATED) -> list[Member]:
    """Return the members of an archive in the order of the file; their contents are not read.

    Args:
        path: The archive.
        most: Largest total size in bytes of the deflated members after inflation.

    Raises:
        InputError: A member has a path outside the archive or a name that occurs twice, is encrypted, is compressed by
            a method other than deflate, or would grow too much.
        DamagedArchive: The directory of the archive does not fit the file.
        OSError: The file cannot be read.
    """
    with open_regular(path) as file:
        infos = _directory(file)
        _check_infos(path, infos)
        size = file.seek(0, os.SEEK_END)
        members = _located(file, size, infos)
    _check_growth(path, size, members, most)
    return members


def member_names(path: Path) -> list[str]:
    """Return the names in the directory of an archive.

    Raises:
        DamagedArchive: The directory is missing or damaged, or claims more than a directory can have.
        OSError: The file cannot be read.
    """
    with open_regular(path) as file:
        return [info.filename for info in _directory(file)]


def inflated(file: BinaryIO, member: Member) -> Iterator[bytes]:
    """Yield the content of a member in pieces of at most one MiB, and compare its length and its checksum.

    Args:
        file: The archive, opened for reading.
        member: One of its members.

    Raises:
        DamagedArchive: The content is longer or shorter than the directory says, or has a different checksum.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS) if member.is_deflated else None
    position, left, rest = member.start, member.packed, member.size
    checksum, waiting = 0, b""
    while rest:
        if not waiting and left:
            file.seek(position)
            waiting = file.read(min(_CHUNK, left))
            position, left = position + len(waiting), left - len(waiting)
        if inflater is None:
            piece, waiting = waiting, b""
        else:
            try:
                piece = inflater.decompress(waiting, min(_CHUNK, rest + 1))
            except zlib.error as error:
                raise DamagedArchive(f"entry {shown(member.name)} cannot be inflated") from error
            waiting = inflater.unconsumed_tail
        if not piece and not waiting and (not left or (inflater is not None and inflater.eof)):
            break
        rest -= len(piece)
        if rest < 0:
            break
        checksum = zlib.crc32(piece, checksum)
        if piece:
            yield piece
    if rest:
        raise DamagedArchive(f"entry {shown(member.name)} does not have the {member.size} bytes that it claims")
    if checksum != member.checksum:
        raise DamagedArchive(f"the checksum of entry {shown(member.name)} does not match")


def shown(name: str) -> str:
    """Return a name from an archive for a message, shortened."""
    return repr(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…")


def _directory(file: BinaryIO) -> list[zipfile.ZipInfo]:
    _check_directory(file)
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OverflowError, EOFError) as error:
        raise DamagedArchive(one_line(error, _SHOWN)) from error


def _check_directory(file: BinaryIO) -> None:
    """Refuse a central directory that needs too much memory: zipfile reads all of it at once."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    # As zipfile does: first an end without a comment, then the last one.
    is_plain = tail[-_END_BYTES:].startswith(_END) and tail.endswith(b"\0\0")
    at = len(tail) - _END_BYTES if is_plain else tail.rfind(_END)
    if at < 0 or at + _END_BYTES > len(tail):
        raise DamagedArchive("its directory is missing")
    claims = [struct.unpack_from("<I", tail, at + 12)[0]]
    at64 = tail.rfind(_END64, 0, at)
    if at64 >= 0 and at64 + 48 <= len(tail):
        claims.append(struct.unpack_from("<Q", tail, at64 + 40)[0])
    directory = max(claim for claim in claims if claim != 0xFFFFFFFF) if claims != [0xFFFFFFFF] else size
    if directory > size:
        raise DamagedArchive(f"its directory claims {directory} bytes, the file has {size}")
    if directory > _MOST_DIRECTORY:
        raise TooManyMembers(f"its directory has {directory} bytes, at most {_MOST_DIRECTORY} are allowed")


def _check_infos(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    seen = set()
    for info in infos:
        # zipfile shortens a name at a zero byte, so the name in the file is checked.
        name = info.orig_filename
        windows = PureWindowsPath(name)
        if PurePosixPath(name).is_absolute() or windows.drive or windows.root or ".." in windows.parts or "\0" in name:
            raise InputError(f"{path}: entry {shown(name)} points outside the archive; do not trust this file")
        if name in seen:
            raise InputError(f"{path}: entry {shown(name)} occurs twice; get the file again")
        if info.flag_bits & _ENCRYPTED:
            raise InputError(f"{path}: entry {shown(name)} is encrypted; save the file without a password")
        if info.compress_type not in _METHODS:
            raise InputError(
                f"{path}: entry {shown(name)} is compressed by method {info.compress_type}; save the file without "
                "compression, or with deflate"
            )
        seen.add(name)


def _located(file: BinaryIO, size: int, infos: list[zipfile.ZipInfo]) -> list[Member]:
    """Return the members, each byte of which belongs to no other member."""
    members, end = [], 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        name = shown(info.filename)
        if info.header_offset < end:
            raise DamagedArchive(f"entry {name} overlaps the member before it")
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise DamagedArchive(f"entry {name} does not start at the offset in the directory")
        start = info.header_offset + _LOCAL_HEADER.size + sum(_LOCAL_HEADER.unpack(header)[-2:])
        end = start + info.compress_size
        is_deflated = info.compress_type == zipfile.ZIP_DEFLATED
        if end > size or (not is_deflated and info.file_size != info.compress_size):
            raise DamagedArchive(f"entry {name} claims {info.file_size} bytes, the file has {size}")
        members.append(Member(info.filename, start, info.compress_size, info.file_size, info.CRC, is_deflated))
    return members


def _check_growth(path: Path, size: int, members: list[Member], most: int) -> None:
    for member in members:
        if member.size > max(_FREE, MAX_RATIO * member.packed):
            raise InputError(
                f"{path}: entry {shown(member.name)} would grow from {member.packed} to {member.size} bytes; arrays of "
                "numbers do not compress that much; do not trust this file"
            )
    total = sum(member.size for member in members if member.is_deflated)
    most = min(most, max(_FREE, MAX_RATIO * size))
    if total > most:
        raise InputError(
            f"{path}: the compressed entries of {size} bytes would grow to {total} bytes, at most {most} are allowed; "
            "save the file without compression"
        )
