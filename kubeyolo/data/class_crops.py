"""The images of a classification set as square crops, which are read when a batch needs them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import numpy as np

from kubeyolo.arrays import Int64Array, Pixels
from kubeyolo.data.crops import Crops, crop_bytes, square_crop, stored_side
from kubeyolo.data.decode import decode_file
from kubeyolo.data.headers import ImageFault, read_image_file
from kubeyolo.errors import InputError
from kubeyolo.formats import share_of, share_text
from kubeyolo.resources import usable_processors
from kubeyolo.storage.file_errors import file_errors

MOST_DAMAGED = 0.05
"""If more than this share of the images cannot be decoded, the set is refused."""

_MOST_THREADS = 8
_AT_ONCE = 1024

ClassFile = tuple[str, int]
"""Path of an image relative to the root of its set, and its class."""


class ClassCrops:
    """Images of a classification set, which stay in memory once they are read, up to a limit.

    The next readable image of the list takes the place of an image that cannot be decoded. So a batch depends only on
    its positions, not on the images that were read before.

    Args:
        root: Folder of the set.
        files: The images, not empty.
        image_size: Side of the network's inputs in pixels.
        memory: Largest size of the images that stay in memory, in bytes.
        name: What the images are, in the plural, for messages.
    """

    def __init__(
        self, root: Path, files: Sequence[ClassFile], image_size: int, memory: int, name: str = "training images"
    ) -> None:
        self._root, self._files, self._name = root, files, name
        self._side = stored_side(image_size)
        self._most = memory // crop_bytes(image_size)
        self._kept: dict[int, Pixels] = {}
        self._damaged: dict[int, str] = {}
        self._lock = Lock()
        self._threads = min(_MOST_THREADS, usable_processors())

    def __len__(self) -> int:
        return len(self._files)

    @property
    def nbytes(self) -> int:
        """Size in bytes of the images that will be in memory."""
        return min(self._most, len(self)) * 3 * self._side**2

    def take(self, positions: Int64Array) -> Crops:
        """Return the crops at some positions of the list; see :class:`kubeyolo.data.crops.Crops`.

        Raises:
            InputError: Too many images cannot be decoded.
        """
        with ThreadPoolExecutor(self._threads) as pool:
            taken = list(pool.map(self._nearest, positions.tolist()))
        labels = np.array([self._files[position][1] for position, _ in taken], np.int32)
        return Crops(np.stack([image for _, image in taken]), labels)

    def read_ahead(self) -> None:
        """Read all images if they fit into the memory, so that all damaged images are known.

        Raises:
            InputError: Too many images cannot be decoded.
        """
        if self._most < len(self):
            return
        for first in range(0, len(self), _AT_ONCE):
            self.take(np.arange(first, min(first + _AT_ONCE, len(self))))

    def readable(self) -> Crops:
        """Read all images and return those that can be decoded, each once."""
        with ThreadPoolExecutor(self._threads) as pool:
            images = list(pool.map(self._read, range(len(self))))
        kept = [(image, label) for image, (_, label) in zip(images, self._files, strict=True) if image is not None]
        return Crops(np.stack([image for image, _ in kept]), np.array([label for _, label in kept], np.int32))

    def warnings(self, consequence: str) -> list[str]:
        """Warn about the images found until now that cannot be decoded; ``consequence`` says what happens instead."""
        with self._lock:
            if not self._damaged:
                return []
            return [
                f"{share_of(len(self._damaged), len(self))} {self._name} cannot be decoded, and {consequence}; the "
                f"first: {self._first()}; replace or remove them"
            ]

    def _nearest(self, position: int) -> tuple[int, Pixels]:
        """Return the first readable image at or after a position, and its position."""
        while (image := self._read(position)) is None:
            position = (position + 1) % len(self)
        return position, image

    def _read(self, position: int) -> Pixels | None:
        """Return an image as a square; None if it cannot be decoded.

        Raises:
            InputError: Too many images cannot be decoded.
        """
        if position in self._damaged:
            return None
        image = self._kept.get(position)
        if image is not None:
            return image
        path = self._root / self._files[position][0]
        try:
            with file_errors(path):
                pixels = decode_file(read_image_file(path)).pixels
        except ImageFault as fault:
            self._note(position, str(fault))
            return None
        height, width = pixels.shape[:2]
        image = square_crop(pixels, np.array([0, 0, width, height], np.float64), 1.0, self._side)
        if len(self._kept) < self._most:
            self._kept[position] = image
        return image

    def _note(self, position: int, fault: str) -> None:
        """Note an image that cannot be decoded; refuse the set if there are too many."""
        with self._lock:
            self._damaged[position] = fault
            damaged = len(self._damaged)
            if damaged > MOST_DAMAGED * len(self):
                raise InputError(
                    f"{self._root}: at least {share_of(damaged, len(self))} {self._name} cannot be decoded, and up to "
                    f"{share_text(MOST_DAMAGED, 0)} may be damaged; the first: {self._first()}; replace or remove them"
                )

    def _first(self) -> str:
        position = min(self._damaged)
        return f"{self._files[position][0]} {self._damaged[position]}"
