"""Which images a network sees together, and in which shape: squares, or rectangles that fit images of similar shapes.

Rectangles save the padding of images that are not square. As in YOLOv5 and Scaled-YOLOv4 the images are sorted by
aspect ratio, and each batch has the smallest shape that its images fit, plus half a stride, rounded up to strides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kubeyolo.arrays import Int64Array
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.letterbox import letterbox_geometry
from kubeyolo.formats import counted

PAD_STRIDES = 0.5
"""Padding of a rectangle in strides, before it is rounded up."""

Size = tuple[int, int]


@dataclass(frozen=True)
class BatchPlan:
    """The images of a split in the order in which a network sees them.

    Attributes:
        order: Numbers (images,) of the images; batch b has the images b·batch_size to (b + 1)·batch_size of it.
        sizes: Height and width of the network's input, for each batch.
        batch_size: Images of a batch; the last batch may have fewer.
    """

    order: Int64Array
    sizes: tuple[Size, ...]
    batch_size: int

    def size(self, position: int) -> Size:
        """Return the height and width in which the image at a position of the order is seen."""
        return self.sizes[position // self.batch_size]

    @property
    def shapes(self) -> list[Size]:
        """Every height and width once, ascending: a network is compiled once for each."""
        return sorted(set(self.sizes))

    def words(self) -> str:
        """Return how many shapes there are, in a line."""
        shapes = self.shapes
        mean = sum(height * width for height, width in self.sizes) / len(self.sizes)
        return (
            f"rectangular batches: {counted(len(shapes), 'shape')}, from {_text(shapes[0])} to {_text(shapes[-1])} "
            f"(height x width), with {mean / 1e6:.2f} megapixels an image; the network is compiled once for each"
        )


def square_batches(images: int, batch_size: int, size: Size) -> BatchPlan:
    """Return batches in the order of the split, all of one size (height, width)."""
    return BatchPlan(np.arange(images), (size,) * math.ceil(images / batch_size), batch_size)


def rectangular_batches(index: SplitIndex, batch_size: int, size: Size, stride: int) -> BatchPlan:
    """Return batches of images of similar shapes, each with a shape of its own.

    An image is resized as for ``size`` (height, width); a shape is at most half a stride larger than ``size``, rounded
    up to strides, so there are at most ``most_shapes(size, stride)`` shapes.

    Args:
        index: Widths and heights of the images.
        batch_size: Images of a batch.
        size: Height and width in which every image fits.
        stride: Largest stride of the network.
    """
    fitted = np.array(
        [
            (geometry.height, geometry.width)
            for width, height in zip(index.width.tolist(), index.height.tolist(), strict=True)
            for geometry in (letterbox_geometry(width, height, size),)
        ],
        np.int64,
    ).reshape(-1, 2)
    order = np.argsort(index.height / index.width, kind="stable")
    sizes = []
    for start in range(0, len(order), batch_size):
        height, width = fitted[order[start : start + batch_size]].max(axis=0)
        sizes.append((_padded(height, stride), _padded(width, stride)))
    return BatchPlan(order, tuple(sizes), batch_size)


def most_shapes(size: Size, stride: int) -> int:
    """Return the largest number of shapes that :func:`rectangular_batches` may have.

    In sorted batches one side is always the longest; only a batch around the aspect ratio of ``size`` has both.
    """
    return sum(_padded(side, stride) // stride for side in size)


def _padded(side: int, stride: int) -> int:
    return math.ceil(side / stride + PAD_STRIDES) * stride


def _text(size: Size) -> str:
    return f"{size[0]} x {size[1]}"
