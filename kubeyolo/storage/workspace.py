"""Temporary folders next to their destination, or below TMPDIR; removed on success and on failure."""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kubeyolo.errors import WorkError
from kubeyolo.storage.base import PART_SUFFIX
from kubeyolo.storage.file_errors import machine_errors, make_folder
from kubeyolo.storage.file_lock import lock_file

_YOUNG_SECONDS = 60.0


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """Yield an empty folder below ``parent``, which is renamed within the block or removed after it.

    Folders that killed processes have left there are removed first.

    Raises:
        InputError: No folder can be made there, or nothing can be written in it.
        WorkError: The disk is full.
    """
    make_folder(parent)
    remove_remains(parent)
    with machine_errors(parent):
        folder, lock = _own_folder(parent)
    try:
        with machine_errors(parent, folder):
            yield folder
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def temporary_folder(kind: str) -> Iterator[Path]:
    """Yield an empty folder below ``$TMPDIR``, which is removed after the block.

    Folders that killed processes of this machine have left there are removed first.

    Args:
        kind: Purpose of the folder, a part of its name.

    Raises:
        InputError: No folder can be made there, or nothing can be written in it.
        WorkError: The disk is full.
    """
    try:
        parent = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        # The message of the error is a list of folders.
        raise WorkError(
            f"no temporary folder: {os.environ.get('TMPDIR') or '/tmp'} cannot be written, or its disk is full; "
            "set TMPDIR to a folder that can be written"
        ) from error
    host = re.sub(r"[^\w.]+", "_", platform.node())
    _remove_unlocked(parent.glob(f"kubeyolo-*-{host}-*"))
    with (
        machine_errors(parent),
        tempfile.TemporaryDirectory(prefix=f"kubeyolo-{kind}-{host}-", ignore_cleanup_errors=True) as name,
        _locked(Path(name)),
        machine_errors(parent, Path(name)),
    ):
        yield Path(name)


def remove_remains(parent: Path) -> None:
    """Remove the folders of unfinished work below ``parent`` that no process has locked."""
    _remove_unlocked(parent.glob(f".*{PART_SUFFIX}"))


def _remove_unlocked(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            # A new folder may not be locked yet. The clock may have been set back.
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or abs(time.time() - status.st_mtime) < _YOUNG_SECONDS:
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                # Without locks, the folder may belong to a running process.
                if lock_file(lock, wait=False):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder for the block, so that no other process removes it as unfinished work."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        lock_file(lock)
        yield
    finally:
        os.close(lock)


def _own_folder(parent: Path) -> tuple[Path, int]:
    """Make a folder below ``parent`` and return it with the descriptor of its lock.

    The lock is held until this process ends, so that no other process removes the folder as unfinished work.
    """
    while True:
        folder = make_folder(parent / f".{uuid.uuid4().hex}{PART_SUFFIX}")
        # If the clock jumps, another process may remove the folder before it is locked: then make a new folder.
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                lock_file(lock)
                if os.path.samestat(os.fstat(lock), folder.stat()):
                    return folder, lock
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)
