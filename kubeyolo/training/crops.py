"""Square image crops for pretraining: objects of a detection set, or the images of a folder of classes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from kubeyolo.arrays import Float64Array, Int64Array, Pixels
from kubeyolo.config.schema import AugmentConfig, PretrainConfig
from kubeyolo.data.augment import jitter_hsv
from kubeyolo.data.dataset import Split
from kubeyolo.data.decode import ImageFault, decode_file
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.letterbox import FILL
from kubeyolo.data.sampler import Sampler
from kubeyolo.errors import InputError
from kubeyolo.file_kinds import IMAGE_SUFFIXES
from kubeyolo.storage.file_errors import file_errors
from kubeyolo.storage.integrity import sha256_file

CONTEXT = 1.5
"""Side of a stored crop over the longer side of its object; training cuts smaller squares out of it."""

VALIDATION_CONTEXT = 1.2
VALIDATION_CROPS = 1024
BACKGROUND_TRIES = 20
BACKGROUND_COVER = 0.1
HELD_OUT = 8
"""Of a folder of classes, one image in so many is held out for validation."""


@dataclass(frozen=True)
class Crops:
    """Crops in memory.

    Attributes:
        images: uint8 (crops, side, side, 3) RGB.
        labels: int32 (crops,) class of each.
    """

    images: Pixels
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.labels)


class CropBatch(NamedTuple):
    """Crops of one step: uint8 (batch, 3, size, size) RGB and int32 (batch,) classes."""

    images: Pixels
    labels: NDArray[np.int32]


def object_crops(split: Split, num_classes: int, config: PretrainConfig, limit: int, seed: int) -> Crops:
    """Cut the objects out of the images of a split, with their surroundings, and places without objects.

    Args:
        split: The images; crowds and objects smaller than ``min_object_size`` pixels are left out.
        num_classes: Number of classes of the objects.
        config: Size of the crops, and how many places without objects there are to each object.
        limit: Largest number of crops; a random choice when there are more.
        seed: Of all choices.

    Returns:
        Crops by image; a place without objects has the number of classes as its class.
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
    side = _stored_side(config.image_size)
    images = np.empty((len(owner), side, side, 3), np.uint8)

    def cut(image_id: int) -> None:
        image = split.read_image(image_id)
        for row in np.flatnonzero(owner == image_id):
            images[row] = square_crop(image, boxes[row], CONTEXT, side)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(cut, np.unique(owner).tolist()))
    return Crops(images, labels)


def large_objects(index: SplitIndex, config: PretrainConfig) -> Int64Array:
    """Return the positions of the boxes that give a crop: no crowds, and at least ``min_object_size`` pixels."""
    large = np.minimum(index.box_xywh[:, 2], index.box_xywh[:, 3]) >= config.min_object_size
    return np.flatnonzero(large & ~index.box_crowd)


def background_squares(
    index: SplitIndex, objects: Int64Array, count: int, rng: np.random.Generator
) -> tuple[Int64Array, Float64Array]:
    """Draw squares that no box covers by more than a tenth, of the sizes that the objects have.

    Args:
        index: Images and boxes; crowds and small boxes count too.
        objects: (objects,) boxes whose sizes are taken.
        count: How many are wanted; fewer are found where the images are full.
        rng: The random numbers.

    Returns:
        Image (squares,) and x, y, width, height (squares, 4) in pixels of each.
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
        boxes = index.box_xywh[index.boxes_of(image)]
        overlap = np.minimum(boxes[:, :2] + boxes[:, 2:], low + side) - np.maximum(boxes[:, :2], low)
        if overlap.clip(0).prod(1).sum() <= BACKGROUND_COVER * side * side:
            owners.append(image)
            squares.append((*low.tolist(), side, side))
    return np.array(owners, np.int64), np.array(squares, np.float64).reshape(-1, 4)


def square_crop(image: Pixels, xywh: Float64Array, context: float, side: int) -> Pixels:
    """Cut a square around a box of an image (H, W, 3) and resize it to ``side``; grey where the image ends."""
    x, y, w, h = (float(value) for value in xywh)
    scale = side / (max(w, h, 1.0) * context)
    shift = (side / 2 - (x + w / 2) * scale, side / 2 - (y + h / 2) * scale)
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    crop = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderValue=(FILL, FILL, FILL))
    return np.asarray(crop, np.uint8)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


@dataclass(frozen=True)
class ClassFolder:
    """A folder with one folder of images for each class."""

    classes: tuple[str, ...]
    files: tuple[tuple[Path, ...], ...]
    digest: str

    @classmethod
    def open(cls, folder: Path) -> ClassFolder:
        """List the images of each class; names decide, hidden files do not count. The digest is over the contents.

        Raises:
            InputError: There is no such folder, there are no classes, or a class has too few images.
        """
        if not folder.is_dir():
            raise InputError(f"{folder}: there is no such folder; give one with a folder of images for each class")
        classes = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."))
        if len(classes) < 2:
            raise InputError(f"{folder}: pretraining needs a folder of images for each of at least 2 classes")
        files = tuple(tuple(sorted(path for path in (folder / name).iterdir() if _is_image(path))) for name in classes)
        for name, paths in zip(classes, files, strict=True):
            if len(paths) < 2:
                raise InputError(f"{folder / name}: a class needs at least 2 images, this one has {len(paths)}")
        digest = hashlib.sha256()
        for paths in files:
            for path in paths:
                with file_errors(path):
                    content = sha256_file(path)
                digest.update(f"{path.relative_to(folder)}\0{content}\n".encode(errors="surrogateescape"))
        return cls(classes, files, digest.hexdigest())

    def crops(self, config: PretrainConfig, held_out: bool, limit: int) -> Crops:
        """Read the images of training, or those held out of it, each as one square.

        Raises:
            InputError: A file is no image.
        """
        chosen: list[tuple[Path, int]] = []
        for label, paths in enumerate(self.files):
            held = set(range(0, len(paths), HELD_OUT))
            chosen += [(path, label) for i, path in enumerate(paths) if (i in held) == held_out]
        if len(chosen) > limit:
            chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, limit).astype(int)]
        side = _stored_side(config.image_size)

        def read(path: Path) -> Pixels:
            try:
                image = decode_file(path.read_bytes()).pixels
            except ImageFault as fault:
                raise InputError(f"{path} {fault}; remove or replace it") from fault
            height, width = image.shape[:2]
            return square_crop(image, np.array([0, 0, width, height], np.float64), 1.0, side)

        with ThreadPoolExecutor(2) as pool:
            images = list(pool.map(read, [path for path, _ in chosen]))
        return Crops(np.stack(images), np.array([label for _, label in chosen], np.int32))


class CropBatches:
    """Batches of augmented crops; a function of (seed, epoch, step) alone.

    The next batch is made by a thread while the current one is trained on.
    """

    def __init__(self, crops: Crops, config: PretrainConfig, augment: AugmentConfig, seed: int) -> None:
        self._crops = crops
        self._size = config.image_size
        self._augment = augment
        self._sampler = Sampler(len(crops), config.per_batch_size, seed)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
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
        chosen = self._sampler.images_at(order, positions)
        images = np.empty((len(chosen), 3, self._size, self._size), np.uint8)
        for row, (crop, position) in enumerate(zip(chosen, positions, strict=True)):
            rng = self._sampler.generator(epoch, int(position))
            images[row] = self._augmented(self._crops.images[crop], rng).transpose(2, 0, 1)
        return CropBatch(images, self._crops.labels[chosen])

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
    """Yield the middle of each crop in order; the last batch repeats its last crop, whose label is then −1."""
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
    """Return the memory of one stored crop."""
    return 3 * _stored_side(image_size) ** 2


def _stored_side(image_size: int) -> int:
    # Training cuts out at least 0.65 of the side, which is then enlarged only a little.
    return round(image_size * CONTEXT / VALIDATION_CONTEXT)
