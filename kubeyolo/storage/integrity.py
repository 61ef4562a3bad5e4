"""Checksums, and files that are written atomically: readers see a complete file or no file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from kubeyolo.errors import InputError
from kubeyolo.storage.base import OnBytes
from kubeyolo.storage.parts import part_file, part_folder

_CHUNK = 1 << 20


def sha256_bytes(data: bytes) -> str:
    """Return the sha256 of ``data`` in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's content in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DamagedContent(InputError):
    """Stored content does not match its checksum."""


def check_sha256(what: str, expected: str, found: str) -> None:
    """Raise ``DamagedContent`` if two digests differ; its message names ``what``."""
    if expected != found:
        raise DamagedContent(
            f"{what}: the content does not match its checksum (expected sha256 {expected}, found {found}); "
            "it was damaged or changed: write it again from its source"
        )


@contextmanager
def appearing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield an empty temporary file next to ``path``; after the block, rename it to ``path``.

    The block writes into this file and does not replace it. If the block raises, the temporary file is removed and
    ``path`` does not change.

    Args:
        path: Path of the file.
        durable: Whether to wait until the file is on the disk, so that it survives a power failure.
    """
    with part_file(path) as part:
        yield part
        if durable:
            with part.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(part, path)
    if durable:
        sync_folder(path.parent)


@contextmanager
def appearing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder next to ``path``; after the block, rename it to ``path`` unless ``path`` exists.

    If several processes make the same folder, the first folder stays. If the block raises, its folder is removed.
    """
    with part_folder(path.parent) as part:
        yield part
        try:
            os.replace(part, path)
        except OSError:
            if not path.is_dir():
                raise


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, so that they survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(reader: BinaryIO, source: Path) -> bytes:
    try:
        return reader.read(_CHUNK)
    except OSError as error:
        error.filename = str(source)
        raise


def copy_with_sha256(source: Path, target: Path, on_bytes: OnBytes | None = None) -> str:
    """Copy the content of a file and return the sha256 of the written content.

    Raises:
        OSError: A file cannot be read or written; an error while reading has the name of the source.
    """
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := _read(reader, source):
            digest.update(chunk)
            writer.write(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
    return digest.hexdigest()
