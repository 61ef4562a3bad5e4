"""Decoded images, resized to the training size, in memory that all workers share.

A resized image is the same whether it comes from the cache or not, so the cache does not change the training.
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
    """Return the number of images, counted from the first, that fit into ``limit_bytes`` together with their flags."""
    needed = np.cumsum(sizes.prod(axis=1) * CHANNELS + 1)
    return int(np.searchsorted(needed, limit_bytes, side="right"))


def cache_bytes(sizes: Int64Array, images: int) -> int:
    """Return the size of a cache of the first ``images`` images."""
    return images + int(sizes[:images].prod(axis=1).sum()) * CHANNELS


class ImageCache:
    """Reads images, each resized to its size in ``sizes``; the first worker that reads an image stores it for all.

    The memory has a flag for each image, then the pixels of one image after the other.
    """

    def __init__(
        self, read_image: Callable[[int], Pixels], sizes: Int64Array, images: int, memory: SharedMemory | None
    ) -> None:
        """Map the cache into this process.

        Args:
            read_image: Decodes an image, uint8 RGB (height, width, 3).
            sizes: int64 (all images, 2): width and height to which each image is resized.
            images: Number of images to cache, counted from the first.
            memory: At least :func:`cache_bytes` of shared memory, or None to cache nothing.
        """
        self._read_image = read_image
        self._sizes = sizes
        self._cached = images if memory is not None else 0
        self._ready = np.zeros(self._cached, bool)
        if memory is not None and self._cached:
            self._memory = memory
            self._flags = memory.array((self._cached,), np.uint8)
            lengths = sizes[: self._cached].prod(axis=1) * CHANNELS
            self._offsets = self._cached + np.concatenate([[0], np.cumsum(lengths)])

    def read(self, image: int) -> Pixels:
        """Return an image, resized, uint8 RGB (height, width, 3); callers must not write to it."""
        if image >= self._cached:
            return self._decode(image)
        width, height = self._sizes[image]
        stored = self._memory.array((int(height), int(width), CHANNELS), np.uint8, int(self._offsets[image]))
        if self._ready[image] or self._is_ready(image):
            return stored
        # Two workers may decode the same image at the same time: both write the same bytes.
        stored[:] = self._decode(image)
        self._is_ready(image, now=True)
        return stored

    def _decode(self, image: int) -> Pixels:
        # Resized as in the letterbox, so that training and evaluation use the same pixels.
        return resize(self._read_image(image), int(self._sizes[image, 0]), int(self._sizes[image, 1]))

    def _is_ready(self, image: int, now: bool = False) -> bool:
        """Return whether an image is stored; ``now`` first marks it as stored for all workers."""
        # A file lock also orders the memory: on processors that reorder stores (ARM), a reader could otherwise see the
        # flag before the pixels. Each worker takes the lock at most twice for each image, and the kernel releases it
        # when a worker dies.
        fcntl.lockf(self._memory.fd, fcntl.LOCK_EX)
        try:
            if now:
                self._flags[image] = 1
            self._ready[image] = self._flags[image]
        finally:
            fcntl.lockf(self._memory.fd, fcntl.LOCK_UN)
        return bool(self._ready[image])
