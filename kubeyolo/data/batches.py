"""Make one batch of a split, given its epoch and step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kubeyolo.arrays import Float32Array, Int64Array, Pixels
from kubeyolo.config.schema import AugmentConfig, DataConfig
from kubeyolo.data.augment import Augmenter, SamplePlan
from kubeyolo.data.cache import MEGABYTE, ImageCache, cache_bytes, cached_images
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.labels import LABEL_COLUMNS, BoxTable, pack_labels, round_capacity, training_capacity
from kubeyolo.data.letterbox import FILL
from kubeyolo.data.sampler import NO_IMAGE, Sampler
from kubeyolo.data.shared_memory import SharedMemory

STATISTICS_SAMPLES = 512


class ImageSource(Protocol):
    """What a loader needs of a split; must be picklable."""

    @property
    def index(self) -> SplitIndex:
        """The images and boxes of the split."""

    def read_image(self, i: int, /) -> Pixels:
        """Return an image, uint8 RGB (height, width, 3)."""


@dataclass(frozen=True)
class Batch:
    """Images and boxes of one step.

    Attributes:
        images: uint8 (batch, 3, height, width) RGB.
        labels: float32 (rows, 6): image in the batch, class, cx, cy, w, h as fractions of the image; unused rows
            have image -1. The number of rows is the same for all batches.
        indices: int64 (batch,): the number in the split of the image that each sample is drawn around; -1 where a
            batch out of training has no image left, which is grey then.
        truncated: Boxes that did not fit into the labels.
    """

    images: Pixels
    labels: Float32Array
    indices: Int64Array
    truncated: int = 0


@dataclass(frozen=True)
class BatchSpec:
    """What all processes that make batches of one loader agree on."""

    source: ImageSource
    augment: AugmentConfig
    image_size: int
    sampler: Sampler
    mosaic_epochs: int | None
    label_capacity: int
    cached_images: int

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """Shape of the images of a batch."""
        return (self.sampler.per_batch_size, 3, self.image_size, self.image_size)

    @property
    def label_shape(self) -> tuple[int, int]:
        """Shape of the labels of a batch."""
        return (self.label_capacity, LABEL_COLUMNS)


def plan_batches(
    source: ImageSource,
    data: DataConfig,
    augment: AugmentConfig,
    image_size: int,
    sampler: Sampler,
    mosaic_epochs: int | None,
) -> tuple[BatchSpec, int]:
    """Fix label capacity and cache of a loader.

    Returns:
        What the processes agree on, and the bytes of the cache.
    """
    boxes = BoxTable(source.index)
    augmenter = Augmenter(augment, boxes, source.index.width, source.index.height, image_size)
    capacity = data.label_capacity or derive_label_capacity(augmenter, sampler, mosaic_epochs)
    kept = cached_images(augmenter.sizes, data.cache_limit_mb * MEGABYTE) if data.cache else 0
    spec = BatchSpec(source, augment, image_size, sampler, mosaic_epochs, capacity, kept)
    return spec, cache_bytes(augmenter.sizes, kept)


def derive_label_capacity(augmenter: Augmenter, sampler: Sampler, mosaic_epochs: int | None) -> int:
    """Return the label rows of a batch, the same on all ranks.

    In training the boxes of a few hundred samples are drawn (their pixels are not) and a batch of them estimated;
    out of training the fullest batch is counted.
    """
    counts = augmenter.boxes.counts
    if not sampler.train:
        starts = np.arange(0, len(counts), sampler.per_batch_size)
        return round_capacity(float(np.add.reduceat(counts, starts).max()))
    rng = sampler.statistics_generator()
    modes = {mosaic_epochs != 0, mosaic_epochs is None}
    return max(
        training_capacity(_sample_counts(augmenter, rng, mosaic), sampler.per_batch_size) for mosaic in sorted(modes)
    )


def _sample_counts(augmenter: Augmenter, rng: np.random.Generator, mosaic: bool) -> Int64Array:
    images = rng.integers(len(augmenter.sizes), size=STATISTICS_SAMPLES)
    return np.array([len(augmenter.labels(augmenter.draw(rng, int(image), mosaic))) for image in images], np.int64)


class BatchMaker:
    """Makes the batches of one loader in one process."""

    def __init__(self, spec: BatchSpec, memory: SharedMemory | None) -> None:
        """Prepare for ``spec``; ``memory`` is the shared cache, None for none."""
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
        labels = []
        for slot, (position, image) in enumerate(zip(positions, batch.indices, strict=True)):
            if image == NO_IMAGE:
                batch.images[slot] = FILL
                labels.append(np.zeros((0, 5), np.float32))
                continue
            plan = self._plan(epoch, int(position), int(image))
            self._augmenter.paint(plan, self._cache.read, batch.images[slot])
            labels.append(self._augmenter.labels(plan))
        return pack_labels(labels, batch.labels)

    def _plan(self, epoch: int, position: int, image: int) -> SamplePlan:
        sampler, mosaic_epochs = self.spec.sampler, self.spec.mosaic_epochs
        if not sampler.train:
            return self._augmenter.plain(image)
        mosaic = mosaic_epochs is None or epoch < mosaic_epochs
        return self._augmenter.draw(sampler.generator(epoch, position), image, mosaic)
