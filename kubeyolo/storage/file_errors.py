"""What the file system says, turned into one line for the person at the terminal."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kubeyolo.errors import InputError, WorkError
from kubeyolo.storage.base import NotFound

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


def make_folder(path: Path) -> Path:
    """Make a folder, and those it lies in, unless it is there; return it.

    Raises:
        InputError: There is a file in the way, or no folder can be made there.
        WorkError: The disk is full.
    """
    with file_errors(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:
            # In a file system that the kernel makes up.
            raise InputError(f"{path}: no folder can be made there; choose another place") from error
    return path


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn every ``OSError`` of work on ``path`` into one of our errors."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        if isinstance(error, FileNotFoundError):
            raise NotFound(f"{path}: there is no such file") from error
        if isinstance(error, PermissionError):
            raise InputError(f"{where}: no permission; choose another folder or change its owner") from error
        if isinstance(error, IsADirectoryError):
            raise InputError(f"{where}: this is a folder, not a file") from error
        if isinstance(error, NotADirectoryError | FileExistsError):
            raise InputError(f"{where}: there is a file where a folder is needed") from error
        if error.errno in _DISK_FULL:
            raise WorkError(f"{where}: the disk is full; free some space and run the same command again") from error
        raise WorkError(f"{where}: {error.strerror or error}") from error
