"""Chooses the images of each batch, the size of the images of each step, and the random numbers of each sample.

The choice depends only on (seed, epoch, position), and for sizes on (seed, step): not on the number of worker processes
or the first step that is requested in an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kubeyolo.arrays import Int64Array

# Kinds of random numbers; they are the first entropy value, so that (seed, epoch) and (seed, epoch, 0) are different
# streams.
_ORDER_STREAM = 1
_SAMPLE_STREAM = 2
_STATISTICS_STREAM = 3
_SIZE_STREAM = 4


@dataclass(frozen=True)
class SizeSchedule:
    """Chooses the size of the images of each step; all processes choose the same size.

    Attributes:
        sizes: Sides of the images in pixels; each is drawn with the same probability.
        rate: Number of steps after which a size is drawn.
        seed: Seed of the training.
    """

    sizes: tuple[int, ...]
    rate: int = 1
    seed: int = 0

    @property
    def largest(self) -> int:
        """The largest side in pixels."""
        return max(self.sizes)

    def at(self, step: int) -> int:
        """Return the side in pixels of the images of a step, counted from the start of the training."""
        if len(self.sizes) == 1:
            return self.sizes[0]
        drawn = np.random.default_rng([_SIZE_STREAM, self.seed, step // self.rate]).integers(len(self.sizes))
        return self.sizes[int(drawn)]

    def between(self, first: int, end: int) -> set[int]:
        """Return the sizes that the steps from ``first`` to ``end``, which is excluded, have."""
        sizes: set[int] = set()
        start = first - first % self.rate if first < end else end
        for step in range(start, end, self.rate):
            sizes.add(self.at(step))
            if len(sizes) == len(self.sizes):
                break
        return sizes


@dataclass(frozen=True)
class Sampler:
    """Divides an epoch into global batches, and each global batch into one slice for each rank.

    A global batch has ``world * per_batch_size`` positions; rank r takes the r-th slice. The images are shuffled in
    every epoch. The last global batch is filled with the first images in the order of the epoch, repeatedly if there
    are fewer images than positions; repeated images get different random numbers.
    """

    images: int
    per_batch_size: int
    seed: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.images < 1 or self.per_batch_size < 1 or not 0 <= self.rank < self.world:
            raise ValueError(f"cannot make batches with {self}")

    @property
    def steps_per_epoch(self) -> int:
        """Number of global batches in an epoch."""
        return -(-self.images // (self.world * self.per_batch_size))

    def order(self, epoch: int) -> Int64Array:
        """Return the images of an epoch in order, int64 (images,)."""
        return np.random.default_rng([_ORDER_STREAM, self.seed, epoch]).permutation(self.images)

    def positions(self, step: int) -> Int64Array:
        """Return the positions of this rank's batch in the epoch, int64 (per_batch_size,)."""
        first = (step * self.world + self.rank) * self.per_batch_size
        return np.arange(first, first + self.per_batch_size, dtype=np.int64)

    def images_at(self, order: Int64Array, positions: Int64Array) -> Int64Array:
        """Return the images at ``positions`` of ``order``, int64."""
        return order[positions % self.images]

    def recent(self, epoch: int, before: int) -> Int64Array:
        """Return the first images of the samples of this rank in an epoch, after ``before`` samples of earlier epochs.

        Epoch 0 follows on itself, since no epoch precedes it.

        Returns:
            int64 (before + steps_per_epoch * per_batch_size,).
        """
        epochs = [self._own_images(epoch)]
        while sum(map(len, epochs[1:])) < before:
            earlier = max(epoch - len(epochs), 0)
            epochs.append(self._own_images(earlier))
        images = np.concatenate(epochs[::-1])
        return images[len(images) - before - len(epochs[0]) :]

    def _own_images(self, epoch: int) -> Int64Array:
        first = self.positions(0) + self.world * self.per_batch_size * np.arange(self.steps_per_epoch)[:, None]
        return self.images_at(self.order(epoch), first.ravel())

    def generator(self, epoch: int, position: int) -> np.random.Generator:
        """Return the generator of the random numbers of the sample at a position of an epoch."""
        return np.random.default_rng([_SAMPLE_STREAM, self.seed, epoch, position])

    def statistics_generator(self) -> np.random.Generator:
        """Return the random generator for statistics before the training; all ranks get the same numbers."""
        return np.random.default_rng([_STATISTICS_STREAM, self.seed])
