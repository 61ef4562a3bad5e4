"""Locks of files, also on file systems without locks: NFS without its lock service, some cloud file systems."""

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
    """Lock an open file or folder, until it is closed; return False if the file system has no locks.

    Raises:
        BlockingIOError: Another process has locked it, and ``wait`` is False.
        OSError: The file cannot be locked.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


@contextmanager
def locked(descriptor: int, path: Path, wait: bool = True) -> Iterator[None]:
    """Lock an open file for the block; if the file system has no locks, a lock file next to it is used.

    The lock of a killed process ends at once if the process was on this machine, else after 30 s.

    Args:
        descriptor: Descriptor of the file.
        path: Path of the file.
        wait: Whether to wait for another process that has locked the file.

    Raises:
        BlockingIOError: Another process has locked the file, and ``wait`` is False.
        OSError: The file cannot be locked.
    """
    if lock_file(descriptor, wait):
        yield
        return
    neighbour = path.with_name(f".{path.name.removeprefix('.')}.held{PART_SUFFIX}")
    lock = SoftFileLease(neighbour, lease_duration=_LEASE_SECONDS, timeout=-1 if wait else 0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise BlockingIOError(errno.EWOULDBLOCK, "locked by another process", str(neighbour)) from None
    try:
        yield
    finally:
        lock.release()
