"""Makes the batch of a split for a given epoch and step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kubeyolo.arrays import Float32Array, Int64Array, Pixels
from kubeyolo.config.training_schema import AugmentConfig, DataConfig
from kubeyolo.data.augment import Augmenter, SamplePlan
from kubeyolo.data.cache import MEGABYTE, CachePlan, ImageCache, tile_bytes
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.labels import LABEL_COLUMNS, BoxTable, pack_labels, training_capacity
from kubeyolo.data.sampler import Sampler, SizeSchedule
from kubeyolo.data.shared_memory import SharedMemory
from kubeyolo.formats import about_size

STATISTICS_SAMPLES = 512

WHOLE_SET_BYTES = 2048 * MEGABYTE
"""With ``augment.partner_window = auto``, partners come from a window if the resized images take more bytes than this.

It is not ``data.cache_limit_mb``, which has no effect on the weights.
"""

WINDOW_SHARE = 0.9
"""Share of these bytes that the images of this window take; the rest is for batches that workers make meanwhile."""

LEAST_WINDOW_BATCHES = 8


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

    Attributes:
        window: Number of samples before a sample whose first images are its possible partners; 0 for all images.
    """

    source: ImageSource
    augment: AugmentConfig
    image_size: int
    sizes: SizeSchedule
    sampler: Sampler
    mosaic_epochs: int | None
    label_capacity: int
    window: int
    cache: CachePlan

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
) -> BatchSpec:
    """Choose the label capacity, the partners and the cache of a loader."""
    boxes = BoxTable(source.index)
    augmenter = Augmenter(augment, boxes, source.index.width, source.index.height, image_size)
    capacity = data.label_capacity or derive_label_capacity(augmenter, sampler, mosaic_epochs)
    window = partner_window(augment, augmenter.sizes, sampler.per_batch_size)
    limit = data.cache_limit_mb * MEGABYTE if data.cache else 0
    cache = CachePlan.of(augmenter.sizes, limit, max(data.workers, 1), window > 0)
    return BatchSpec(source, augment, image_size, sizes, sampler, mosaic_epochs, capacity, window, cache)


def partner_window(augment: AugmentConfig, sizes: Int64Array, per_batch_size: int) -> int:
    """Return the number of samples before a sample from whose images its partners are drawn; 0 for all images.

    With ``auto`` it follows from the set, the image size and the batch.

    Args:
        augment: The settings of the augmentation.
        sizes: int64 (images, 2): width and height of the resized images.
        per_batch_size: Number of images in a batch of a process.
    """
    if not augment.mosaic and not augment.mixup:
        return 0
    if augment.partner_window != "auto":
        return augment.partner_window
    total = tile_bytes(sizes)
    if total <= WHOLE_SET_BYTES:
        return 0
    return max(int(WINDOW_SHARE * WHOLE_SET_BYTES * len(sizes) / total), LEAST_WINDOW_BATCHES * per_batch_size)


def decoding_note(spec: BatchSpec) -> str:
    """Return how many images are decoded for a sample if the cache does not hold all; empty if it does."""
    cache, augment = spec.cache, spec.augment
    partners = 3 * augment.mosaic + augment.mixup * (1 + 3 * augment.mosaic)
    if not partners or cache.capacity >= cache.needed:
        return ""
    drawn_from = round(cache.needed * min((spec.window or cache.images) / cache.images, 1))
    decoded = 1 + partners * max(1 - cache.capacity / drawn_from, 0)
    sizes = (
        f"the training images take {about_size(cache.needed)} when decoded, and the cache {about_size(cache.capacity)}"
    )
    if decoded == 1:
        return f"{sizes}: partners come from the last {spec.window} images, so each sample decodes one image"
    fitting = int(WINDOW_SHARE * cache.capacity * cache.images / cache.needed)
    if spec.window or fitting < LEAST_WINDOW_BATCHES * spec.sampler.per_batch_size:
        limit = int(drawn_from / (WINDOW_SHARE if spec.window else 1) / MEGABYTE) + 2
        remedy = f"with data.cache and --set data.cache_limit_mb={limit} it is one, for the same batches"
    else:
        remedy = f"with --set augment.partner_window={fitting}, a different training, it is one"
    return f"{sizes}: each sample decodes about {decoded:.1f} images; {remedy}"


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
        self._cache = ImageCache(spec.source.read_image, self._augmenter.sizes, spec.cache, memory)
        self._epoch = -1
        self._images = np.zeros(0, np.int64)

    def make(self, epoch: int, step: int, batch: Batch) -> int:
        """Fill the arrays of ``batch`` and return the number of boxes that did not fit."""
        # First all plans and labels: between two images, their code would no longer be in the processor's cache.
        size = batch.images.shape[-1]
        drawn = (self.draw(epoch, step, slot) for slot in range(self.spec.sampler.per_batch_size))
        samples = [(image, plan.resized(size)) for image, plan in drawn]
        truncated = pack_labels([self._augmenter.labels(plan) for _, plan in samples], batch.labels)
        for slot, (image, plan) in enumerate(samples):
            batch.indices[slot] = image
            self._cache.begin_sample(image, is_partner=self._has_mosaics(epoch))
            self._augmenter.paint(plan, self._cache.read, batch.images[slot])
        return truncated

    def draw(self, epoch: int, step: int, slot: int) -> tuple[int, SamplePlan]:
        """Return the first image and the plan of a sample; ``slot`` is its place in the batch."""
        sampler, window = self.spec.sampler, self.spec.window
        if epoch != self._epoch:
            self._epoch, self._images = epoch, sampler.recent(epoch, window)
        turn = step * sampler.per_batch_size + slot
        image, recent = int(self._images[window + turn]), self._images[turn : turn + window]
        generator = sampler.generator(epoch, int(sampler.positions(step)[slot]))
        return image, self._augmenter.draw(
            generator, image, self._has_mosaics(epoch), partners=recent if window else None
        )

    def _has_mosaics(self, epoch: int) -> bool:
        return self.spec.mosaic_epochs is None or epoch < self.spec.mosaic_epochs
