"""Decoded images, resized to the training size, in memory that all workers share.

An image is the same whether it comes from the cache or not, so the cache does not change the training.

The memory has a header of whole numbers, then the pixels as a ring: positions in the ring only grow, and the byte of a
position is the position modulo the capacity. If all images fit, or if partners come from all images, images are stored
until the ring is full, and stay. A rolling cache stores each image in its turn, in place of the images that were stored
the longest time ago. So it has the most recent images, from which partners are drawn.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from kubeyolo.arrays import Int64Array, Pixels
from kubeyolo.data.letterbox import resize
from kubeyolo.data.shared_memory import SharedMemory

CHANNELS = 3
MEGABYTE = 1 << 20

_NOTHING = np.iinfo(np.int64).max
# Numbers of the header before the tables: the next position in the ring, and the number of processes that read.
_NEXT, _JOINED, _TABLES = 0, 1, 2
# In the place of a position while another process writes the image.
_RESERVED = -1
_NUMBER = np.dtype(np.int64).itemsize


@dataclass(frozen=True)
class CachePlan:
    """The layout of the memory.

    Attributes:
        images: Number of images of the split.
        needed: Bytes of pixels of all images.
        capacity: Bytes of pixels; 0 stores nothing.
        readers: Largest number of processes that read.
        is_rolling: Whether images replace images that were stored earlier.
    """

    images: int
    needed: int
    capacity: int
    readers: int
    is_rolling: bool

    @classmethod
    def of(cls, sizes: Int64Array, limit: int, readers: int, has_window: bool) -> CachePlan:
        """Plan a cache of at most ``limit`` bytes.

        Args:
            sizes: int64 (images, 2): width and height to which each image is resized.
            limit: Bytes, with the header.
            readers: Largest number of processes that read.
            has_window: Whether partners are drawn from recent images only.
        """
        images = len(sizes)
        needed, room = tile_bytes(sizes), limit - _header_bytes(images, readers)
        if room < int(sizes.prod(axis=1).max()) * CHANNELS:
            return cls(images, needed, 0, readers, False)
        return cls(images, needed, min(needed, room), readers, has_window and needed > room)

    @property
    def size(self) -> int:
        """Bytes of the memory; 0 if nothing is stored."""
        return self.capacity and _header_bytes(self.images, self.readers) + self.capacity


def tile_bytes(sizes: Int64Array) -> int:
    """Return the bytes of all images, resized to ``sizes``, int64 (images, 2)."""
    return int(sizes.prod(axis=1).sum()) * CHANNELS


def _header_bytes(images: int, readers: int) -> int:
    return (_TABLES + readers + images) * _NUMBER


class ImageCache:
    """Reads images, each resized to its size in ``sizes``, and stores them for all workers.

    Each process reads the images of one sample after the other. A rolling cache does not overwrite images that the
    current sample of a process has read: each process publishes the first position of these images.
    """

    def __init__(
        self, read_image: Callable[[int], Pixels], sizes: Int64Array, plan: CachePlan, memory: SharedMemory | None
    ) -> None:
        """Map the cache into this process.

        Args:
            read_image: Decodes an image, uint8 RGB (height, width, 3).
            sizes: int64 (all images, 2): width and height to which each image is resized.
            plan: The layout of the memory.
            memory: ``plan.size`` bytes of shared memory, zeros at the start; None if nothing is stored.
        """
        self._read_image = read_image
        self._sizes = sizes
        self._plan = plan
        self._tiles: dict[int, Pixels] = {}
        self._memory = memory
        if memory is None:
            return
        numbers = memory.array((_TABLES + plan.readers + plan.images,), np.int64)
        self._header = numbers[:_TABLES]
        self._used = numbers[_TABLES : _TABLES + plan.readers]
        # Position of each image plus 1; 0 if it was never stored.
        self._stored = numbers[_TABLES + plan.readers :]
        with self._locked():
            self._reader = int(self._header[_JOINED])
            self._header[_JOINED] += 1
            self._used[self._reader] = _NOTHING

    def begin_sample(self, image: int, is_partner: bool) -> None:
        """Release the images of the sample before, and store the image whose turn it is in a rolling cache.

        Args:
            image: The first image of the sample.
            is_partner: Whether later samples may have the image as a partner.
        """
        if self._memory is None or not self._plan.is_rolling:
            return
        self._tiles.clear()
        with self._locked():
            self._used[self._reader] = _NOTHING
        if is_partner:
            # Stored again if it is there from its turn in the epoch before, so that it stays for a whole window.
            tile = self._find(image)
            self._tiles[image] = self._store(image, self._decode(image) if tile is None else tile)

    def read(self, image: int) -> Pixels:
        """Return an image, resized, uint8 RGB (height, width, 3); callers must not write to it.

        In a rolling cache it may change after the next call of :meth:`begin_sample`.
        """
        if self._memory is None:
            return self._decode(image)
        tile = self._tiles.get(image)
        if tile is None:
            tile = self._find(image)
            if tile is None:
                tile = self._decode(image)
                if self._plan.is_rolling:
                    # A partner whose turn was long ago: its place belongs to a more recent image.
                    self._tiles[image] = tile
                else:
                    tile = self._store(image, tile)
        return tile

    def _decode(self, image: int) -> Pixels:
        # Resized as in the letterbox, so that training and evaluation use the same pixels.
        return resize(self._read_image(image), int(self._sizes[image, 0]), int(self._sizes[image, 1]))

    def _find(self, image: int) -> Pixels | None:
        """Return an image that is stored, and protect it until the next sample; None if it is not stored."""
        with self._locked():
            position = int(self._stored[image]) - 1
            if position < 0 or position < self._header[_NEXT] - self._plan.capacity:
                return None
            self._protect(position)
        return self._kept(image, position)

    def _store(self, image: int, pixels: Pixels) -> Pixels:
        """Store an image and return it; if its place is in use or another process stores it, it is not stored."""
        with self._locked():
            position = self._reserve(image, pixels.size)
        if position is None:
            return pixels
        stored = self._at(image, position)
        stored[:] = pixels
        with self._locked():
            self._stored[image] = position + 1
        return self._kept(image, position)

    def _reserve(self, image: int, length: int) -> int | None:
        """Return the position at which this process may write an image; None if it must not be stored."""
        capacity, first = self._plan.capacity, int(self._header[_NEXT])
        if self._stored[image] and not self._plan.is_rolling:
            return None
        position = first if first % capacity + length <= capacity else -(-first // capacity) * capacity
        end = position + length
        oldest = int(self._used[: self._header[_JOINED]].min())
        if end > capacity and (not self._plan.is_rolling or oldest < end - capacity):
            return None
        self._header[_NEXT] = end
        if not self._plan.is_rolling:
            self._stored[image] = _RESERVED
        self._protect(position)
        return position

    def _protect(self, position: int) -> None:
        self._used[self._reader] = min(int(self._used[self._reader]), position)

    def _kept(self, image: int, position: int) -> Pixels:
        """Return an image in the memory, and remember it: for this sample, or always if it stays."""
        tile = self._tiles[image] = self._at(image, position)
        return tile

    def _at(self, image: int, position: int) -> Pixels:
        assert self._memory is not None
        width, height = self._sizes[image]
        offset = _header_bytes(self._plan.images, self._plan.readers) + position % self._plan.capacity
        return self._memory.array((int(height), int(width), CHANNELS), np.uint8, offset)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A file lock also orders the memory: on processors that reorder stores (ARM), a reader could otherwise see a
        # position before the pixels. The kernel releases it when a worker dies.
        assert self._memory is not None
        fcntl.lockf(self._memory.fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._memory.fd, fcntl.LOCK_UN)
