"""Decoded images, resized to the training size, kept in memory that all workers share.

The resized image is the same whether it comes from the cache or not, so the cache changes no number.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable

import numpy as np

from kubeyolo.arrays import Int64Array, Pixels
from kubeyolo.data.letterbox import resize
from kubeyolo.data.shared_memory import SharedMemory

CHANNELS = 3
MEGABYTE = 1 << 20


def cached_images(sizes: Int64Array, limit_bytes: int) -> int:
    """Return how many images from the front fit into ``limit_bytes``, their flags included."""
    needed = np.cumsum(sizes.prod(axis=1) * CHANNELS + 1)
    return int(np.searchsorted(needed, limit_bytes, side="right"))


def cache_bytes(sizes: Int64Array, images: int) -> int:
    """Return the size of a cache of the first ``images`` images."""
    return images + int(sizes[:images].prod(axis=1).sum()) * CHANNELS


class ImageCache:
    """Reads images of a fixed size each; whoever needs one first stores it for all.

    The memory holds a flag for each image, then the pixels of one image after the other.
    """

    def __init__(
        self, read_image: Callable[[int], Pixels], sizes: Int64Array, images: int, memory: SharedMemory | None
    ) -> None:
        """Make the view of one process.

        Args:
            read_image: Decodes an image, uint8 RGB (height, width, 3).
            sizes: int64 (all images, 2): width and height to which each image is resized.
            images: How many images, from the front, are kept.
            memory: At least :func:`cache_bytes` of shared memory, or None to keep nothing.
        """
        self._read_image = read_image
        self._sizes = sizes
        self._kept = images if memory is not None else 0
        self._known = np.zeros(self._kept, bool)
        if memory is not None and self._kept:
            self._memory = memory
            self._flags = memory.array((self._kept,), np.uint8)
            lengths = sizes[: self._kept].prod(axis=1) * CHANNELS
            self._offsets = self._kept + np.concatenate([[0], np.cumsum(lengths)])

    def read(self, image: int) -> Pixels:
        """Return an image in its size, uint8 RGB (height, width, 3); do not write to it."""
        if image >= self._kept:
            return self._decode(image)
        width, height = self._sizes[image]
        stored = self._memory.array((int(height), int(width), CHANNELS), np.uint8, int(self._offsets[image]))
        if self._known[image] or self._is_ready(image):
            return stored
        # Two workers may decode the same image at the same time: both write the same bytes.
        stored[:] = self._decode(image)
        self._set_ready(image)
        return stored

    def _decode(self, image: int) -> Pixels:
        # Resized as the letterbox does: training sees what evaluation sees.
        return resize(self._read_image(image), int(self._sizes[image, 0]), int(self._sizes[image, 1]))

    # The flag is read and written under a file lock. Beside excluding others it orders the memory: on processors that
    # reorder stores (ARM), a reader could otherwise see the flag before the pixels. It is taken once for each image
    # and worker, and the kernel drops it when a worker dies.

    def _is_ready(self, image: int) -> bool:
        fcntl.lockf(self._memory.fd, fcntl.LOCK_EX)
        try:
            self._known[image] = bool(self._flags[image])
        finally:
            fcntl.lockf(self._memory.fd, fcntl.LOCK_UN)
        return bool(self._known[image])

    def _set_ready(self, image: int) -> None:
        fcntl.lockf(self._memory.fd, fcntl.LOCK_EX)
        try:
            self._flags[image] = 1
            self._known[image] = True
        finally:
            fcntl.lockf(self._memory.fd, fcntl.LOCK_UN)
