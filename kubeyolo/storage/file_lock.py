"""Locks of files, also where the file system has none: NFS without its lock service, some file systems of clouds."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import SoftFileLease, Timeout

from kubeyolo.storage.base import PART_SUFFIX

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
_LEASE_SECONDS = 30.0


def lock_file(descriptor: int, wait: bool = True) -> bool:
    """Lock an open file or folder, until it is closed; return False where the file system has no locks.

    Raises:
        BlockingIOError: Another process holds it, and this one does not wait.
        OSError: It cannot be locked.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


@contextmanager
def held_file(descriptor: int, path: Path, wait: bool = True) -> Iterator[None]:
    """Hold an open file for the block; where its file system has no locks, by another file beside it.

    What a killed process leaves does not stand in the way: at once where it was one of this machine, else after 30 s.

    Args:
        descriptor: Of the file.
        path: Its path.
        wait: Whether to wait for the process that holds it.

    Raises:
        BlockingIOError: Another process holds it, and this one does not wait.
        OSError: It cannot be held.
    """
    if lock_file(descriptor, wait):
        yield
        return
    beside = path.with_name(f".{path.name.removeprefix('.')}.held{PART_SUFFIX}")
    lock = SoftFileLease(beside, lease_duration=_LEASE_SECONDS, timeout=-1 if wait else 0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise BlockingIOError(errno.EWOULDBLOCK, "held by another process", str(beside)) from None
    try:
        yield
    finally:
        lock.release()
