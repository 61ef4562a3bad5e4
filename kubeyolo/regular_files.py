"""Opens files that other people may have written: regular files only, without waiting, up to a size for each kind.

A pipe or a terminal would block the reader, a device such as ``/dev/zero`` never ends, and a sparse file of a terabyte
takes no disk space but as much memory. Every file that is an input is opened here.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from kubeyolo.errors import InputError
from kubeyolo.formats import size_text

KB, MB, GB = 1 << 10, 1 << 20, 1 << 30

CONFIGURATION_SIZE = 1 * MB
"""Bytes: largest configuration, schedule, ``data.yaml`` or another text that people write by hand."""

CLASSES_SIZE = 8 * MB
"""Bytes: largest file of class names."""

LABELS_SIZE = 16 * MB
"""Bytes: largest file with the annotations of a single image."""

LIST_SIZE = 1 * GB
"""Bytes: largest list of images, and largest document of results."""

DOCUMENT_SIZE = 256 * MB
"""Bytes: largest manifest, record or note in a store."""

ANNOTATIONS_SIZE = 16 * GB
"""Bytes: largest file with the annotations of a whole split."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: Path | str, most: int | None = None) -> BinaryIO:
    """Open a regular file for reading; links are followed.

    Args:
        path: The file.
        most: Largest size in bytes; None if the caller reads only parts of the file.

    Raises:
        InputError: The path is a pipe, a socket or a device, or the file is too large.
        OSError: The file does not exist, is a folder, or cannot be opened.
    """
    _refuse_others(path, os.stat(path).st_mode)
    # The path may have been replaced since: opening a pipe without O_NONBLOCK would wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        found = os.fstat(descriptor)
        _refuse_others(path, found.st_mode)
        if most is not None and found.st_size > most:
            _refuse_size(path, size_text(found.st_size), most)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path | str, most: int) -> bytes:
    """Return the content of a regular file.

    Args:
        path: The file; links are followed.
        most: Largest size in bytes. Files of the kernel, which have the size 0, are measured while they are read.

    Raises:
        InputError: The path is a pipe, a socket or a device, or the file is larger than ``most``.
        OSError: The file does not exist, is a folder, or cannot be read.
    """
    with open_regular(path, most) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1)
        if len(data) > size:
            data += file.read(most + 1 - len(data))
    if len(data) > most:
        _refuse_size(path, f"more than {size_text(most)}", most)
    return data


def _refuse_others(path: Path | str, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kind = next((name for matches, name in _KINDS if matches(mode)), "a special file")
    raise InputError(f"{path}: this is {kind}, not a file; copy its content to a file and give that file")


def _refuse_size(path: Path | str, size: str, most: int) -> None:
    raise InputError(f"{path}: {size}, at most {size_text(most)} allowed for a file of this kind; check the file")
