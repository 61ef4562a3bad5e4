"""Temporary folders next to their destination, or below TMPDIR; removed on success and on failure."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kubeyolo.errors import WorkError
from kubeyolo.storage.file_errors import machine_errors
from kubeyolo.storage.file_lock import lock_file
from kubeyolo.storage.parts import part_folder


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """Yield an empty folder below ``parent``, which is renamed within the block or removed after it.

    Folders and files that killed processes have left there are removed first.

    Raises:
        InputError: No folder can be made there, or nothing can be written in it.
        WorkError: The disk is full.
    """
    with machine_errors(parent), part_folder(parent) as folder, machine_errors(parent, folder):
        yield folder


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
    prefix = f"kubeyolo-{kind}-{_host()}-"
    _remove_unlocked(parent.glob(f"kubeyolo-*-{_host()}-*"))
    with machine_errors(parent):
        folder, lock = _locked_folder(parent, prefix)
    try:
        with machine_errors(parent, folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _host() -> str:
    return re.sub(r"[^\w.]+", "_", platform.node())


def _remove_unlocked(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                # Without locks, the folder may belong to a running process.
                if lock_file(lock, wait=False):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _locked_folder(parent: Path, prefix: str) -> tuple[Path, int]:
    """Make a folder below ``parent`` and return it with the descriptor that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        # Another process may lock and remove the folder before it is locked here: then make a new folder.
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
