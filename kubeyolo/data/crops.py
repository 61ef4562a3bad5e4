"""Square crops of images for pretraining, and their batches: objects of a data set, and background without objects."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from kubeyolo.arrays import Float64Array, Int32Array, Int64Array, Pixels
from kubeyolo.config.training_schema import AugmentConfig, PretrainConfig
from kubeyolo.data.augment import jitter_hsv
from kubeyolo.data.dataset import Split
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.letterbox import FILL
from kubeyolo.data.overlaps import corners, shared_areas
from kubeyolo.data.sampler import Sampler

CONTEXT = 1.5
"""Side of a stored crop divided by the longer side of its object; training cuts smaller squares out of the crop."""

VALIDATION_CONTEXT = 1.2
BACKGROUND_TRIES = 20
BACKGROUND_COVER = 0.1


@dataclass(frozen=True)
class Crops:
    """Crops in memory.

    Attributes:
        images: uint8 (crops, side, side, 3) RGB.
        labels: int32 (crops,): class of each crop.
    """

    images: Pixels
    labels: Int32Array

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        """Size of the crops in bytes."""
        return self.images.nbytes

    def take(self, positions: Int64Array) -> Crops:
        """Return the crops at some positions."""
        return Crops(self.images[positions], self.labels[positions])


class CropSource(Protocol):
    """Crops to train on, in memory or in files."""

    def __len__(self) -> int:
        """Number of crops."""

    def take(self, positions: Int64Array) -> Crops:
        """Return the crops at some positions."""


class CropBatch(NamedTuple):
    """Crops of one step: uint8 (batch, 3, size, size) RGB and int32 (batch,) classes."""

    images: Pixels
    labels: Int32Array


def object_crops(split: Split, num_classes: int, config: PretrainConfig, limit: int, seed: int) -> Crops:
    """Cut objects with their surroundings, and background without objects, out of the images of a split.

    Args:
        split: The images; crowds and objects smaller than ``min_object_size`` pixels are left out.
        num_classes: Number of classes of the objects.
        config: Size of the crops, and number of background crops for each object.
        limit: Largest number of crops; if there are more objects, a random choice of them is used.
        seed: Seed of all random choices.

    Returns:
        The object crops, then the background crops, whose class is ``num_classes``.
    """
    index = split.index
    chosen = large_objects(index, config)
    rng = np.random.default_rng([seed, len(chosen)])
    objects = math.ceil(limit / (1 + config.background))
    if len(chosen) > objects:
        chosen = np.sort(rng.choice(chosen, objects, replace=False))
    owner, boxes = background_squares(
        index, chosen, min(limit - len(chosen), int(len(chosen) * config.background)), rng
    )
    owner = np.concatenate([index.box_image()[chosen], owner])
    boxes = np.concatenate([index.box_xywh[chosen], boxes])
    labels = np.full(len(owner), num_classes, np.int32)
    labels[: len(chosen)] = index.box_class[chosen]
    side = stored_side(config.image_size)
    images = np.empty((len(owner), side, side, 3), np.uint8)

    def cut(image_id: int) -> None:
        image = split.read_image(image_id)
        for row in np.flatnonzero(owner == image_id):
            images[row] = square_crop(image, boxes[row], CONTEXT, side)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(cut, np.unique(owner).tolist()))
    return Crops(images, labels)


def large_objects(index: SplitIndex, config: PretrainConfig) -> Int64Array:
    """Return the positions of the boxes to crop: both sides at least ``min_object_size`` pixels, no crowds."""
    large = np.minimum(index.box_xywh[:, 2], index.box_xywh[:, 3]) >= config.min_object_size
    return np.flatnonzero(large & ~index.box_crowd)


def background_squares(
    index: SplitIndex, objects: Int64Array, count: int, rng: np.random.Generator
) -> tuple[Int64Array, Float64Array]:
    """Draw random squares as large as objects, with at most a tenth of their area covered by boxes.

    Args:
        index: Images and boxes; crowds and small boxes also cover area.
        objects: (objects,) positions of the boxes whose sizes are used.
        count: Number of squares; fewer are returned if the images are full of objects.
        rng: The random numbers.

    Returns:
        The image of each square (squares,), and its x, y, width, height (squares, 4) in pixels.
    """
    owners: list[int] = []
    squares: list[tuple[float, float, float, float]] = []
    for _ in range(BACKGROUND_TRIES * count):
        if len(squares) == count:
            break
        image = int(rng.integers(len(index.width)))
        side = float(index.box_xywh[rng.choice(objects), 2:].max())
        room = np.array([index.width[image], index.height[image]]) - side
        if room.min() < 0:
            continue
        low = rng.uniform(0, room)
        boxes, square = index.box_xywh[index.boxes_of(image)], np.concatenate([low, low + side])
        if shared_areas(corners(boxes), square[None]).sum() <= BACKGROUND_COVER * side * side:
            owners.append(image)
            squares.append((*low.tolist(), side, side))
    return np.array(owners, np.int64), np.array(squares, np.float64).reshape(-1, 4)


def square_crop(image: Pixels, xywh: Float64Array, context: float, side: int) -> Pixels:
    """Cut a square around a box out of an image (H, W, 3) and resize it to ``side``; outside the image it is grey."""
    x, y, w, h = (float(value) for value in xywh)
    scale = side / (max(w, h, 1.0) * context)
    shift = (side / 2 - (x + w / 2) * scale, side / 2 - (y + h / 2) * scale)
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    crop = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderValue=(FILL, FILL, FILL))
    return np.asarray(crop, np.uint8)


class CropBatches:
    """Batches of augmented crops of one process; each depends only on (seed, epoch, step) and on its rank.

    A thread makes the next batch while the network is trained on the current batch.
    """

    def __init__(
        self,
        crops: CropSource,
        config: PretrainConfig,
        augment: AugmentConfig,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._crops = crops
        self._size = config.image_size
        self._augment = augment
        self._sampler = Sampler(len(crops), config.per_batch_size, seed, rank, world)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return self._sampler.steps_per_epoch

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[CropBatch]:
        """Yield the batches of an epoch from ``start_step`` on."""
        order = self._sampler.order(epoch)
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self._make, order, epoch, start_step)
            for step in range(start_step, self.steps_per_epoch):
                batch = ahead.result()
                if step + 1 < self.steps_per_epoch:
                    ahead = pool.submit(self._make, order, epoch, step + 1)
                yield batch

    def _make(self, order: Int64Array, epoch: int, step: int) -> CropBatch:
        positions = self._sampler.positions(step)
        crops = self._crops.take(self._sampler.images_at(order, positions))
        images = np.empty((len(crops), 3, self._size, self._size), np.uint8)
        for row, (crop, position) in enumerate(zip(crops.images, positions, strict=True)):
            rng = self._sampler.generator(epoch, int(position))
            images[row] = self._augmented(crop, rng).transpose(2, 0, 1)
        return CropBatch(images, crops.labels)

    def _augmented(self, crop: Pixels, rng: np.random.Generator) -> Pixels:
        config, side = self._augment, crop.shape[0]
        window = float(rng.uniform(0.65, 1.0)) * side
        left, top = rng.uniform(0, side - window, 2)
        scale = self._size / window
        matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
        image = cv2.warpAffine(crop, matrix, (self._size, self._size), flags=cv2.INTER_LINEAR)
        gains = rng.uniform(-1, 1, 3) * (config.hsv_h, config.hsv_s, config.hsv_v) + 1
        jitter_hsv(image, (float(gains[0]), float(gains[1]), float(gains[2])))
        if rng.random() < 0.5:
            image = image[:, ::-1]
        return np.asarray(image, np.uint8)


def validation_batches(crops: Crops, config: PretrainConfig) -> Iterator[CropBatch]:
    """Yield batches of the centres of the crops, in order; the last batch is padded with its last crop, labelled -1."""
    size, batch, side = config.image_size, config.per_batch_size, crops.images.shape[1]
    window = round(side * VALIDATION_CONTEXT / CONTEXT)
    start = (side - window) // 2
    for first in range(0, len(crops), batch):
        chosen: Sequence[int] = range(first, min(first + batch, len(crops)))
        images = np.empty((batch, 3, size, size), np.uint8)
        labels = np.full(batch, -1, np.int32)
        for row in range(batch):
            crop = crops.images[chosen[min(row, len(chosen) - 1)]]
            middle = crop[start : start + window, start : start + window]
            images[row] = cv2.resize(middle, (size, size), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)
        labels[: len(chosen)] = crops.labels[list(chosen)]
        yield CropBatch(images, labels)


def crop_bytes(image_size: int) -> int:
    """Return the size of a stored crop in memory, in bytes."""
    return 3 * stored_side(image_size) ** 2


def stored_side(image_size: int) -> int:
    """Return the side in pixels of a stored crop, for a network with inputs of ``image_size`` pixels."""
    # Training cuts out at least 0.65 of the side, so it enlarges the cut-out only a little.
    return round(image_size * CONTEXT / VALIDATION_CONTEXT)
