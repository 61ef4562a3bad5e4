"""Folders of unfinished work: beside what they become, gone when the work ends, however that may be."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kubeyolo.storage.base import PART_SUFFIX
from kubeyolo.storage.file_errors import make_folder

_YOUNG_SECONDS = 60.0


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """Yield an empty folder below ``parent``, which is renamed within the block or removed after it.

    Folders that were left there by processes that were killed are removed first.

    Raises:
        InputError: No folder can be made there.
    """
    make_folder(parent)
    remove_remains(parent)
    folder = make_folder(parent / f".{uuid.uuid4().hex}{PART_SUFFIX}")
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Held while this process lives: so remains are told from the work of others.
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def remove_remains(parent: Path) -> None:
    """Remove the folders of unfinished work below ``parent`` that no process holds any more."""
    for folder in parent.glob(f".*{PART_SUFFIX}"):
        with suppress(OSError):
            # One that is being made is not locked yet.
            if not folder.is_dir() or time.time() - folder.stat().st_mtime < _YOUNG_SECONDS:
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
