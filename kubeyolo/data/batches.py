"""Makes the batch of a split for a given epoch and step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kubeyolo.arrays import Float32Array, Int64Array, Pixels
from kubeyolo.config.training_schema import AugmentConfig, DataConfig
from kubeyolo.data.augment import Augmenter
from kubeyolo.data.cache import MEGABYTE, ImageCache, cache_bytes, cached_images
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.labels import LABEL_COLUMNS, BoxTable, pack_labels, training_capacity
from kubeyolo.data.sampler import Sampler, SizeSchedule
from kubeyolo.data.shared_memory import SharedMemory

STATISTICS_SAMPLES = 512


class ImageSource(Protocol):
    """The attributes and methods of a split that a loader uses; the split must be picklable."""

    @property
    def index(self) -> SplitIndex:
        """The images and boxes of the split."""

    def read_image(self, i: int, /) -> Pixels:
        """Return an image, uint8 RGB (height, width, 3)."""


@dataclass(frozen=True)
class Batch:
    """Images and boxes of one step.

    Attributes:
        images: uint8 (batch, 3, size, size) RGB.
        labels: float32 (rows, 6): image in the batch, class, cx, cy, w, h as fractions of the image; unused rows have
            image number -1. The number of rows is the same for all batches.
        indices: int64 (batch,): for each sample, the position of its first image in the split.
        truncated: Number of boxes that did not fit into the labels.
    """

    images: Pixels
    labels: Float32Array
    indices: Int64Array
    truncated: int = 0


@dataclass(frozen=True)
class BatchSpec:
    """The settings that all processes that make batches for a loader share.

    Samples are planned and images cached for ``image_size`` pixels; they are painted in the size of their step.
    """

    source: ImageSource
    augment: AugmentConfig
    image_size: int
    sizes: SizeSchedule
    sampler: Sampler
    mosaic_epochs: int | None
    label_capacity: int
    cached_images: int

    def size_at(self, epoch: int, step: int) -> int:
        """Return the side in pixels of the images of a step of an epoch."""
        return self.sizes.at(epoch * self.sampler.steps_per_epoch + step)

    def image_shape(self, size: int) -> tuple[int, int, int, int]:
        """Return the shape of the images of a batch, by their side in pixels."""
        return (self.sampler.per_batch_size, 3, size, size)

    @property
    def label_shape(self) -> tuple[int, int]:
        """Shape of the labels of a batch."""
        return (self.label_capacity, LABEL_COLUMNS)


def plan_batches(
    source: ImageSource,
    data: DataConfig,
    augment: AugmentConfig,
    image_size: int,
    sizes: SizeSchedule,
    sampler: Sampler,
    mosaic_epochs: int | None,
) -> tuple[BatchSpec, int]:
    """Choose the label capacity and the size of the cache of a loader.

    Returns:
        The settings that the processes share, and the size of the cache in bytes.
    """
    boxes = BoxTable(source.index)
    augmenter = Augmenter(augment, boxes, source.index.width, source.index.height, image_size)
    capacity = data.label_capacity or derive_label_capacity(augmenter, sampler, mosaic_epochs)
    cached = cached_images(augmenter.sizes, data.cache_limit_mb * MEGABYTE) if data.cache else 0
    spec = BatchSpec(source, augment, image_size, sizes, sampler, mosaic_epochs, capacity, cached)
    return spec, cache_bytes(augmenter.sizes, cached)


def derive_label_capacity(augmenter: Augmenter, sampler: Sampler, mosaic_epochs: int | None) -> int:
    """Return the number of label rows of a batch, the same on all ranks.

    It is estimated from the boxes of a few hundred samples, which are planned and labelled but not painted.
    """
    rng = sampler.statistics_generator()
    modes = {mosaic_epochs != 0, mosaic_epochs is None}
    return max(
        training_capacity(_sample_counts(augmenter, rng, mosaic), sampler.per_batch_size) for mosaic in sorted(modes)
    )


def _sample_counts(augmenter: Augmenter, rng: np.random.Generator, mosaic: bool) -> Int64Array:
    images = rng.integers(len(augmenter.sizes), size=STATISTICS_SAMPLES)
    return np.array([len(augmenter.labels(augmenter.draw(rng, int(image), mosaic))) for image in images], np.int64)


class BatchMaker:
    """Makes the batches of a loader in one process."""

    def __init__(self, spec: BatchSpec, memory: SharedMemory | None) -> None:
        """Prepare to make batches as ``spec`` describes; ``memory`` is the shared cache, None if nothing is cached."""
        index = spec.source.index
        self.spec = spec
        self._augmenter = Augmenter(spec.augment, BoxTable(index), index.width, index.height, spec.image_size)
        self._cache = ImageCache(spec.source.read_image, self._augmenter.sizes, spec.cached_images, memory)
        self._epoch = -1
        self._order = np.zeros(0, np.int64)

    def make(self, epoch: int, step: int, batch: Batch) -> int:
        """Fill the arrays of ``batch`` and return the number of boxes that did not fit."""
        sampler = self.spec.sampler
        if epoch != self._epoch:
            self._epoch, self._order = epoch, sampler.order(epoch)
        positions = sampler.positions(step)
        batch.indices[:] = sampler.images_at(self._order, positions)
        labels, size = [], batch.images.shape[-1]
        mosaic = self.spec.mosaic_epochs is None or epoch < self.spec.mosaic_epochs
        for slot, (position, image) in enumerate(zip(positions, batch.indices, strict=True)):
            generator = sampler.generator(epoch, int(position))
            plan = self._augmenter.draw(generator, int(image), mosaic).resized(size)
            self._augmenter.paint(plan, self._cache.read, batch.images[slot])
            labels.append(self._augmenter.labels(plan))
        return pack_labels(labels, batch.labels)
