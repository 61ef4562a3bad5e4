"""Files that are written only if they do not exist yet, or only if they have a certain content.

Processes that write the same file through these functions exclude each other; other writers ignore the lock.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kubeyolo.storage.base import PART_SUFFIX
from kubeyolo.storage.file_lock import locked
from kubeyolo.storage.integrity import appearing, sha256_file, sync_folder
from kubeyolo.storage.parts import has_file, part_file

LOCK_NAME = f".lock{PART_SUFFIX}"
"""The lock file of a folder. Its holder removes it before releasing the lock; a waiting process makes a new file."""

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_WRITE_BITS = 0o666


def create_file(path: Path, data: bytes) -> bool:
    """Write a file unless it exists, and return whether this call wrote it; the write is atomic.

    Raises:
        OSError: The file cannot be written.
    """
    with part_file(path) as part:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        created = _give_name(part, path)
    if created:
        sync_folder(path.parent)
    elif path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return created


def replace_file(path: Path, data: bytes, sha256: str) -> bool:
    """Replace a file whose content has this sha256, and return whether it was replaced.

    Raises:
        OSError: The file cannot be written.
    """
    if not path.parent.is_dir():
        return False
    with folder_lock(path.parent):
        if not path.is_file() or sha256_file(path) != sha256:
            return False
        with appearing(path) as part:
            part.write_bytes(data)
        return True


def _give_name(part: Path, path: Path) -> bool:
    try:
        os.link(part, path)
        return True
    except FileExistsError:
        # A network file system repeats a request whose answer was lost, and then finds its own link.
        return part.stat().st_nlink > 1
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    with folder_lock(path.parent):
        if os.path.lexists(path):
            return False
        os.replace(part, path)
        return True


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Lock a folder for the block against other threads and processes that change its content conditionally.

    Raises:
        OSError: The folder does not exist, or cannot be locked.
    """
    path = folder / LOCK_NAME
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, _WRITE_BITS)
        try:
            with locked(descriptor, path):
                # The previous holder has removed the file, or the folder was removed and created again.
                if not has_file(descriptor, path):
                    continue
                if os.fstat(descriptor).st_uid == os.geteuid():
                    # Every user who may write in the folder may lock it.
                    os.fchmod(descriptor, folder.stat().st_mode & _WRITE_BITS)
                try:
                    yield
                finally:
                    if has_file(descriptor, path):
                        path.unlink(missing_ok=True)
                return
        finally:
            os.close(descriptor)
