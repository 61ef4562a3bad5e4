"""Anonymous memory, shared by a process and the workers that it starts.

The memory belongs to an open file that has no name in any folder: the kernel frees it when the last process that has
the file open ends, even if that process is killed. It is not limited by the size of /dev/shm, which is 64 MB in a
container by default.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from kubeyolo.arrays import AnyArray

Buffer: TypeAlias = mmap.mmap | memoryview


def _open_nameless() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("kubeyolo")
    with tempfile.TemporaryFile(prefix="kubeyolo-") as file:
        return os.dup(file.fileno())


class SharedMemory:
    """Zero-filled memory that other processes can map by its file descriptor.

    Attributes:
        fd: File descriptor, for ``subprocess.Popen(pass_fds=...)``.
        size: Bytes.
        map: The mapping of this process.
    """

    def __init__(self, size: int, fd: int | None = None) -> None:
        """Allocate ``size`` bytes, or map the memory of the file descriptor ``fd``, which this object then closes."""
        self.size = size
        if fd is None:
            fd = _open_nameless()
            os.ftruncate(fd, size)
        self.fd = fd
        self.map = mmap.mmap(fd, size)
        self._closed = False

    def array(self, shape: tuple[int, ...], dtype: DTypeLike, offset: int = 0) -> AnyArray:
        """Return an array in the memory; the array keeps the memory alive."""
        return np.ndarray(shape, dtype, buffer=self.map, offset=offset)

    def close(self) -> None:
        """Close the file descriptor; the mapping is released with the last array in it."""
        if not self._closed:
            self._closed = True
            os.close(self.fd)
