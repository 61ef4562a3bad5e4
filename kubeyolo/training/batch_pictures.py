"""Pictures of batches as the network receives them: augmented images with their boxes, in ``batches/`` of the output.

Drawn are the first batch of the first epoch, and of an epoch later in the training, for which mosaic and mixup may be
off. The report shows the pictures. Drawing does not change a batch.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kubeyolo.arrays import AnyArray, Pixels
from kubeyolo.report.samples import BOX_COLORS, overlap
from kubeyolo.storage.base import Store
from kubeyolo.training.loop_parts import Moment, Speed

FOLDER = "batches"

TILES, COLUMNS, SIDE, GAP = 8, 4, 240, 8
"""Largest number of images of a picture, images in a row, side of an image and distance of images in pixels."""

LARGEST_BYTES = 200_000
SHOWN = 3
"""Most pictures in a report; a training that was extended may have more."""

_KEY = re.compile(rf"{FOLDER}/epoch-(\d{{6}})\.jpg")
_QUALITIES = (85, 70, 50, 30)
_HALO, _INK, _PAPER = (0, 0, 0), (16, 16, 16), (28, 33, 39)
_LETTERS = 12


class BatchPictures:
    """Stores a picture of the first batch that the training receives of each of some epochs.

    Args:
        store: The output of the training.
        epochs: The epochs, from 0.
        classes: Names of the classes.
        speed: The time to draw and store a picture is left out of the images per second.
    """

    def __init__(self, store: Store, epochs: Collection[int], classes: Sequence[str], speed: Speed) -> None:
        self._store, self._epochs, self._classes, self._speed = store, set(epochs), classes, speed

    def after_step(self, moment: Moment) -> None:
        """Draw the batch of the step if it is the first batch of a chosen epoch since the start of this process."""
        if moment.epoch not in self._epochs:
            return
        self._epochs.remove(moment.epoch)
        key = picture_key(moment.epoch)
        # A training that was continued within the epoch has the picture of the first batch already.
        if moment.starts_epoch or not self._store.exists(key):
            with self._speed.paused():
                picture = draw_batch(moment.batch.images, moment.batch.labels, self._classes)
                self._store.write_bytes(key, picture)


def picture_key(epoch: int) -> str:
    """Return the key of the picture of an epoch, which is counted from 0 here and from 1 in the key."""
    return f"{FOLDER}/epoch-{epoch + 1:06d}.jpg"


def stored_pictures(store: Store) -> list[tuple[bytes, str]]:
    """Return the first and the last two pictures of a training, as JPEG, each with its caption."""
    keys = [stored.key for stored in store.list(FOLDER) if _KEY.fullmatch(stored.key)]
    if len(keys) > SHOWN:
        keys = [keys[0], *keys[1 - SHOWN :]]
    epochs = (int(match[1]) for match in map(_KEY.fullmatch, keys) if match)
    return [(store.read_bytes(key), f"epoch {epoch}, first batch") for key, epoch in zip(keys, epochs, strict=True)]


def pictured_epochs(max_epoch: int, close_mosaic: int) -> frozenset[int]:
    """Return the first epoch, and the first epoch without mosaic and mixup or the epoch in the middle, from 0."""
    without = max_epoch - close_mosaic
    return frozenset({0, without if close_mosaic and 0 < without < max_epoch else max_epoch // 2})


def draw_batch(images: Pixels, labels: AnyArray, classes: Sequence[str]) -> bytes:
    """Return a JPEG of at most 200 kB with the first images of a batch and their boxes.

    Args:
        images: uint8 (batch, 3, height, width) RGB.
        labels: float32 (rows, 6): image in the batch or -1, class, cx, cy, w, h as fractions of the image.
        classes: Names of the classes.
    """
    count = min(len(images), TILES)
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    sheet = Image.new("RGB", _size(columns, rows), _PAPER)
    font = ImageFont.load_default(_LETTERS)
    for number in range(count):
        own = labels[labels[:, 0] == number]
        tile = _draw_tile(images[number].transpose(1, 2, 0), own[:, 1:], classes, font)
        sheet.paste(tile, (number % columns * (SIDE + GAP), number // columns * (SIDE + GAP)))
    return _encode(sheet)


def _draw_tile(pixels: Pixels, boxes: AnyArray, classes: Sequence[str], font: Any) -> Image.Image:
    """Return an image with its boxes (k, 5) of class, cx, cy, w, h; the largest boxes are drawn first."""
    way = cv2.INTER_NEAREST if pixels.shape[0] < SIDE else cv2.INTER_AREA
    tile = Image.fromarray(cv2.resize(np.ascontiguousarray(pixels), (SIDE, SIDE), interpolation=way).astype(np.uint8))
    canvas = ImageDraw.Draw(tile)
    placed = []
    for box in sorted(boxes.tolist(), key=lambda row: -row[3] * row[4]):
        number, cx, cy, width, height = box
        left, top = max(0.0, (cx - width / 2) * SIDE), max(0.0, (cy - height / 2) * SIDE)
        right, bottom = min(SIDE - 1.0, (cx + width / 2) * SIDE), min(SIDE - 1.0, (cy + height / 2) * SIDE)
        area = (left, top, max(left, right), max(top, bottom))
        color = BOX_COLORS[int(number) % len(BOX_COLORS)]
        canvas.rectangle(area, outline=_HALO, width=3)
        canvas.rectangle(area, outline=color, width=2)
        placed.append((left, top, color, _name(classes[int(number)], int(number))))
    taken: list[tuple[float, float, float, float]] = []
    for left, top, color, name in placed:
        width = canvas.textlength(name, font)
        x, y = max(0.0, min(left, SIDE - width - 5)), max(0.0, top - _LETTERS - 2)
        chip = (x, y, x + width + 4, y + _LETTERS + 2)
        # A name that would cover another name is left out: its box has the colour of its class.
        if not any(overlap(chip, other) for other in taken):
            taken.append(chip)
            canvas.rectangle(chip, fill=color)
            canvas.text((x + 2, y), name, fill=_INK, font=font)
    return tile


def _name(name: str, number: int) -> str:
    """Return the name of a class, or its number if the font has only some of its letters."""
    try:
        name.encode("latin-1")
    except UnicodeEncodeError:
        return f"#{number}"
    return name if len(name) <= 16 else name[:15] + "."


def _size(columns: int, rows: int) -> tuple[int, int]:
    return columns * (SIDE + GAP) - GAP, rows * (SIDE + GAP) - GAP


def _encode(sheet: Image.Image) -> bytes:
    """Return a JPEG with the highest quality that fits the limit."""
    data = b""
    for quality in _QUALITIES:
        stream = io.BytesIO()
        sheet.save(stream, "JPEG", quality=quality, subsampling=0)
        data = stream.getvalue()
        if len(data) <= LARGEST_BYTES:
            break
    return data
