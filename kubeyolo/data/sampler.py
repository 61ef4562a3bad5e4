"""Which images make which batch, and the random numbers of each sample.

Everything here is a function of (seed, epoch, position): it depends neither on the number of worker processes
nor on where an epoch was entered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kubeyolo.arrays import Int64Array

NO_IMAGE = -1

# Kinds of random numbers; they lead the entropy so that (seed, epoch) and (seed, epoch, 0) are different streams.
_ORDER_STREAM = 1
_SAMPLE_STREAM = 2
_STATISTICS_STREAM = 3


@dataclass(frozen=True)
class Sampler:
    """Splits an epoch into global batches, and each global batch into the slices of the ranks.

    A global batch has ``world * per_batch_size`` positions, of which rank r takes the r-th slice. In training the
    images are shuffled for every epoch, and the last global batch is filled with images from the front of the same
    order (as often as needed when there are fewer images than positions); such repeated images get random numbers of
    their own. Out of training the order is that of the data set and the missing positions hold ``NO_IMAGE``.
    """

    images: int
    per_batch_size: int
    seed: int
    rank: int = 0
    world: int = 1
    train: bool = True

    def __post_init__(self) -> None:
        if self.images < 1 or self.per_batch_size < 1 or not 0 <= self.rank < self.world:
            raise ValueError(f"no batches can be made by {self}")

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of an epoch."""
        return -(-self.images // (self.world * self.per_batch_size))

    def order(self, epoch: int) -> Int64Array:
        """Return the images of an epoch in order, int64 (images,)."""
        if not self.train:
            return np.arange(self.images, dtype=np.int64)
        return np.random.default_rng([_ORDER_STREAM, self.seed, epoch]).permutation(self.images)

    def positions(self, step: int) -> Int64Array:
        """Return the positions in the epoch of this rank's batch, int64 (per_batch_size,)."""
        first = (step * self.world + self.rank) * self.per_batch_size
        return np.arange(first, first + self.per_batch_size, dtype=np.int64)

    def images_at(self, order: Int64Array, positions: Int64Array) -> Int64Array:
        """Return the images at positions, int64; ``NO_IMAGE`` behind the end out of training."""
        images = order[positions % self.images]
        return images if self.train else np.where(positions < self.images, images, NO_IMAGE)

    def generator(self, epoch: int, position: int) -> np.random.Generator:
        """Return the random numbers of the sample at a position of an epoch."""
        return np.random.default_rng([_SAMPLE_STREAM, self.seed, epoch, position])

    def statistics_generator(self) -> np.random.Generator:
        """Return random numbers for statistics that are taken before training; the same on all ranks."""
        return np.random.default_rng([_STATISTICS_STREAM, self.seed])
