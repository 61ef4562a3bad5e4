"""The zip archives that PyTorch writes: a pickle, and one entry for each storage."""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from kubeyolo.errors import InputError
from kubeyolo.weights.stored_array import Content

MAX_PICKLE = 64 << 20
"""Largest pickle in bytes; the pickle of the largest detector has less than one million bytes."""

MAX_INFLATED = 2 << 30
"""Largest total size in bytes of all compressed entries after decompression. PyTorch itself does not compress."""

MAX_RATIO = 100
"""Largest compression ratio of an entry above one MiB; trained weights shrink by a tenth at most."""

_CHUNK = 1 << 20
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 1


@dataclass(frozen=True)
class TorchArchive:
    """The checked entries of an archive, without their common first folder."""

    path: Path
    entries: dict[str, Content]

    def pickle(self) -> bytes:
        """Return the bytes of the pickle.

        Raises:
            InputError: There is no pickle, or it is too large.
        """
        if "data.pkl" not in self.entries:
            raise InputError(
                f"{self.path}: a zip archive without data.pkl, not a PyTorch checkpoint; give a different file"
            )
        content = self.entries["data.pkl"]
        if content.length > MAX_PICKLE:
            raise InputError(
                f"{self.path}: data.pkl has {content.length} bytes, at most {MAX_PICKLE} are allowed; "
                "save only the model's state_dict()"
            )
        return content.read(0, content.length)

    def storage(self, key: str) -> Content | None:
        """Return the bytes of a storage, or None if the archive does not contain it."""
        return self.entries.get(f"data/{key}")


def open_archive(path: Path) -> TorchArchive:
    """Open a checkpoint in PyTorch's zip format, and check the position and the checksum of each entry.

    Raises:
        InputError: It is not such an archive; an entry has a path outside the archive, is outside the file, overlaps
            another entry, has a wrong checksum, is encrypted, or is compressed more than weights can be.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            _check_names(path, infos)
            entries = _stored(path, [info for info in infos if info.compress_type == zipfile.ZIP_STORED])
            entries |= _inflated(path, archive, [info for info in infos if info.filename not in entries])
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path}: the archive is damaged ({error}); get the file again") from error
    root = _root(path, entries)
    content = {name.removeprefix(root): entry for name, entry in entries.items()}
    _check_kind(path, content)
    return TorchArchive(path, content)


def _check_names(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    seen = set()
    for info in infos:
        # zipfile shortens a name at a zero byte, so the name in the file is checked.
        name = info.orig_filename
        windows = PureWindowsPath(name)
        if PurePosixPath(name).is_absolute() or windows.drive or windows.root or ".." in windows.parts or "\0" in name:
            raise InputError(f"{path}: entry {name!r} points outside the archive; do not trust this file")
        if name in seen:
            raise InputError(f"{path}: entry {name!r} occurs twice; get the file again")
        if info.flag_bits & _ENCRYPTED:
            raise InputError(f"{path}: entry {name!r} is encrypted; save the checkpoint without a password")
        seen.add(name)


def _stored(path: Path, infos: list[zipfile.ZipInfo]) -> dict[str, Content]:
    """Return the uncompressed entries; each byte of the file belongs to at most one entry."""
    entries, end = {}, 0
    size = path.stat().st_size
    with path.open("rb") as file:
        for info in sorted(infos, key=lambda info: info.header_offset):
            file.seek(info.header_offset)
            header = file.read(_LOCAL_HEADER.size)
            if info.header_offset < end or len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
                raise zipfile.BadZipFile(f"entry {info.filename!r} does not start at the offset in the directory")
            name_length, extra_length = _LOCAL_HEADER.unpack(header)[-2:]
            start = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
            end = start + info.file_size
            if info.file_size != info.compress_size or end > size:
                raise zipfile.BadZipFile(f"entry {info.filename!r} claims {info.file_size} bytes, the file has {size}")
            content = Content(path, ((start, info.file_size),))
            if content.checksum() != info.CRC:
                raise zipfile.BadZipFile(f"the checksum of entry {info.filename!r} does not match")
            entries[info.filename] = content
    return entries


def _inflated(path: Path, archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo]) -> dict[str, Content]:
    """Inflate compressed entries, after checking the bounds of all of them."""
    for info in infos:
        if info.file_size > max(_CHUNK, MAX_RATIO * info.compress_size):
            raise InputError(
                f"{path}: entry {info.filename!r} would grow from {info.compress_size} to {info.file_size} bytes; "
                "weights do not compress that much; do not trust this file"
            )
    total = sum(info.file_size for info in infos)
    if total > MAX_INFLATED:
        raise InputError(
            f"{path}: the compressed entries would grow to {total} bytes, at most {MAX_INFLATED} are allowed; "
            "save the checkpoint without compression"
        )
    # zipfile stops at the size in the directory, so no entry exceeds these bounds.
    return {info.filename: Content(None, memory=archive.read(info)) for info in infos}


def _root(path: Path, entries: dict[str, Content]) -> str:
    pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) > 1:
        raise InputError(f"{path}: has {len(pickles)} pickles, a checkpoint has one; give a different file")
    return pickles[0].removesuffix("data.pkl") if pickles else ""


def _check_kind(path: Path, entries: dict[str, Content]) -> None:
    if "constants.pkl" in entries:
        raise InputError(f"{path}: is a TorchScript program, not a checkpoint; give the checkpoint it was made from")
    order = entries.get("byteorder")
    if order is not None and order.length < _CHUNK and order.read(0, order.length).strip() != b"little":
        raise InputError(f"{path}: was written on a big-endian machine; save it again on a little-endian machine")
