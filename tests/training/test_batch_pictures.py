"""Pictures of batches: the pixels and boxes of the batch, small, and written once for each chosen epoch."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image, ImageColor

from kubeyolo.report.samples import BOX_COLORS
from kubeyolo.storage.place import Place
from kubeyolo.training.batch_pictures import (
    GAP,
    LARGEST_BYTES,
    SIDE,
    BatchPictures,
    draw_batch,
    pictured_epochs,
    stored_pictures,
)
from kubeyolo.training.loop_parts import Moment, Speed

CLASSES = ("disc", "ring", "輪", "a very long name of a class")


def batch_of(count: int, size: int = 64) -> SimpleNamespace:
    """Return a batch of grey images; each has one box of another class, in its middle."""
    images = np.stack([np.full((3, size, size), 20 + 10 * number, np.uint8) for number in range(count)])
    rows = [[number, number % 4, 0.5, 0.5, 0.5, 0.25] for number in range(count)]
    return SimpleNamespace(images=images, labels=np.array([*rows, [-1, 0, 0, 0, 0, 0]], np.float32))


def test_a_picture_has_the_first_eight_images_with_their_boxes_in_the_colour_of_the_class() -> None:
    batch = batch_of(10)
    before = batch.images.copy(), batch.labels.copy()
    picture = Image.open(io.BytesIO(draw_batch(batch.images, batch.labels, CLASSES)))
    assert picture.size == (4 * SIDE + 3 * GAP, 2 * SIDE + GAP)
    pixels = np.asarray(picture).astype(int)
    for number in range(8):
        left, top = number % 4 * (SIDE + GAP), number // 4 * (SIDE + GAP)
        assert np.abs(pixels[top + SIDE // 2, left + SIDE // 2] - (20 + 10 * number)).max() < 6
        # The lower edge of the box, at 0.5 + 0.25 / 2 of the height.
        row = pixels[top + round(0.625 * SIDE) - 1 : top + round(0.625 * SIDE) + 1, left + SIDE // 2].mean(0)
        assert np.abs(row - ImageColor.getrgb(BOX_COLORS[number % 4])).max() < 60
    assert np.array_equal(before[0], batch.images) and np.array_equal(before[1], batch.labels)


def test_a_picture_of_noise_stays_below_its_limit_and_a_batch_of_one_image_has_one_tile() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (16, 3, 640, 640), np.uint8)
    assert 50_000 < len(draw_batch(noise, batch_of(16).labels, CLASSES)) <= LARGEST_BYTES
    one = batch_of(1)
    assert Image.open(io.BytesIO(draw_batch(one.images, one.labels, CLASSES))).size == (SIDE, SIDE)


def test_the_pictured_epochs_are_the_first_and_the_first_without_mosaic_or_the_middle() -> None:
    assert pictured_epochs(300, 10) == {0, 290}
    assert pictured_epochs(300, 0) == {0, 150}
    assert pictured_epochs(8, 8) == {0, 4}
    assert pictured_epochs(1, 0) == {0}


def test_pictures_are_written_for_the_chosen_epochs_and_kept_by_a_continued_training(tmp_path: Path) -> None:
    store = Place.of(tmp_path).store

    def train(start: int, brightness: int) -> None:
        part = BatchPictures(store, {0, 2}, CLASSES, Speed())
        for step in range(start, 9):
            batch = batch_of(2)
            batch.images[:] = brightness + step
            part.after_step(Moment(step + 1, step // 3, step % 3 == 2, step == 8, step % 3 == 0, batch))

    train(0, 100)
    first = stored_pictures(store)
    assert [caption for _, caption in first] == ["epoch 1, first batch", "epoch 3, first batch"]
    shades = [int(np.asarray(Image.open(io.BytesIO(data)))[SIDE // 2, SIDE // 2, 0]) for data, _ in first]
    assert [abs(shade - wanted) < 6 for shade, wanted in zip(shades, (100, 106), strict=True)] == [True, True]

    # Continued within epoch 3: its picture is the picture of its first batch, not of the batch it continues with.
    train(7, 200)
    assert stored_pictures(store) == first
    train(6, 200)
    assert stored_pictures(store)[0] == first[0] and stored_pictures(store)[1] != first[1]
