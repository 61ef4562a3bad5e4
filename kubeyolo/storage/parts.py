"""Unfinished files and folders next to their destination, each locked by the process that writes it.

A process that is killed cannot remove its unfinished files, but its locks end with it. So a process removes the files
and folders that no process has locked, however old they are, and never those of a living process, however slow it is.
On a file system without locks nothing is removed, since nobody can tell which files belong to living processes.
"""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kubeyolo.storage.base import PART_SUFFIX
from kubeyolo.storage.file_errors import make_folder
from kubeyolo.storage.file_lock import lock_file

_LOCK_ENDING = f".lock{PART_SUFFIX}"
"""Ending of the lock file of a folder: a lock of a folder itself would not reach other machines over NFS."""

_MODE = 0o666
_swept: set[Path] = set()


@contextmanager
def part_file(path: Path) -> Iterator[Path]:
    """Yield a new, empty file next to ``path``, which is renamed within the block or removed after it.

    The block writes into this file. A file that took its place would not be locked.

    Raises:
        OSError: The file cannot be made.
    """
    make_folder(path.parent)
    _sweep_once(path.parent)
    part, descriptor = _locked_file(path.parent, PART_SUFFIX)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def part_folder(parent: Path) -> Iterator[Path]:
    """Yield an empty folder below ``parent``, which is renamed within the block or removed after it.

    Raises:
        OSError: The folder cannot be made.
    """
    make_folder(parent)
    remove_remains(parent)
    lock, descriptor = _locked_file(parent, _LOCK_ENDING)
    folder = _folder_of(lock)
    try:
        # Made after its lock: a folder without a lock file does not belong to a living process.
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def grave_of(path: Path) -> Path:
    """Return the name next to ``path`` that a folder gets before its files are removed."""
    _sweep_once(path.parent)
    return path.with_name(f".{uuid.uuid4().hex}{PART_SUFFIX}")


def remove_remains(parent: Path) -> None:
    """Remove the unfinished files and folders in ``parent`` that no process has locked."""
    for path in parent.glob(f".*{PART_SUFFIX}"):
        with suppress(OSError):
            _remove_unlocked(path)


def has_file(descriptor: int, path: Path) -> bool:
    """Tell whether ``path`` is the name of an open file. The name is looked up on the server of a network disk."""
    try:
        now = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.path.samestat(os.fstat(descriptor), os.fstat(now))
    finally:
        os.close(now)


def _sweep_once(folder: Path) -> None:
    """Remove the remains in a folder if this process has not done so before: listing a large folder takes time."""
    if folder not in _swept:
        _swept.add(folder)
        remove_remains(folder)


def _locked_file(folder: Path, ending: str) -> tuple[Path, int]:
    """Make a file and return it with the descriptor that holds its lock."""
    while True:
        path = folder / f".{uuid.uuid4().hex}{ending}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _MODE)
        try:
            # Another process may have locked and removed the file before this lock: then make a new file.
            if not lock_file(descriptor) or has_file(descriptor, path):
                return path, descriptor
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        os.close(descriptor)


def _folder_of(lock: Path) -> Path:
    return lock.with_name(f"{lock.name.removesuffix(_LOCK_ENDING)}{PART_SUFFIX}")


def _remove_unlocked(path: Path) -> None:
    mode, lock = path.lstat().st_mode, path
    if stat.S_ISDIR(mode):
        lock = path.with_name(f"{path.name.removesuffix(PART_SUFFIX)}{_LOCK_ENDING}")
    elif not stat.S_ISREG(mode):
        return
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        if lock_file(descriptor, wait=False) and has_file(descriptor, lock):
            if lock.name.endswith(_LOCK_ENDING):
                shutil.rmtree(_folder_of(lock), ignore_errors=True)
            lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
