"""A generated data set for first runs: rendered objects on textured backgrounds, in COCO layout.

The classes differ only in shape: colours, textures and rotations have the same distribution for all. A box is tight
around the visible pixels of its object, and ``area`` is the number of these pixels, as in COCO; objects of which more
than 70 % is hidden are not annotated. Some images have a tight group of small objects with one crowd box.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson

from kubeyolo.arrays import BoolArray, Float64Array, Pixels
from kubeyolo.data.texture import background, contrasting_colour, fill
from kubeyolo.errors import InputError
from kubeyolo.storage.file_errors import file_errors
from kubeyolo.storage.workspace import work_folder

CLASSES = ("disc", "triangle", "cross")
SMALLEST = 10
"""Longer side of the smallest object, in pixels; the largest object takes half of the shorter side of its image."""
MOST_HIDDEN = 0.7

_JPEG_QUALITY = 90
_OBJECTS = (3, 8)
_CROWD_SHARE = 0.1
_TRIES = 30
_HIDES = 0.55
_COVER_SHARE = 0.04
_VERSION = 1


@dataclass(frozen=True)
class SceneObject:
    """An annotated object: class number; left, top, width and height of its visible part; its visible pixels."""

    label: int
    xywh: tuple[int, int, int, int]
    visible: BoolArray  # (height, width) of the box
    hidden: float
    crowd: bool


@dataclass(frozen=True)
class Scene:
    """An image (H, W, 3) RGB and its annotated objects."""

    image: Pixels
    objects: list[SceneObject]


def generate_sample_dataset(
    folder: Path, seed: int = 0, train: int = 240, val: int = 60, image_size: tuple[int, int] = (320, 320)
) -> Path:
    """Write a data set of rendered objects; the same arguments give the same bytes.

    Args:
        folder: The output folder, which is written completely or not at all. If it has this data set already, it is not
            written again.
        seed: Seed of all random choices; each image has a random stream that depends on seed, split and number.
        train: Number of training images.
        val: Number of validation images.
        image_size: Mean width and height; each side varies by 15 %.

    Returns:
        The folder.

    Raises:
        InputError: The folder has different content, or an argument is out of range.
    """
    if train < 1 or val < 1 or min(image_size) < 64 or seed < 0:
        raise InputError(
            f"sample data set of {train} + {val} images of {image_size}: "
            "give at least 1 image for each split and 64 px for each side"
        )
    info = {
        "description": "kubeyolo sample data set",
        "version": _VERSION,
        "seed": seed,
        "train": train,
        "val": val,
        "image_size": list(image_size),
    }
    if folder.exists() and _is_written(folder, info):
        return folder
    with file_errors(folder), work_folder(folder.absolute().parent) as part:
        (part / "annotations").mkdir()
        first_image, first_box = 1, 1
        for number, (split, count) in enumerate((("train", train), ("val", val))):
            (part / split).mkdir()
            document = _render_split(part / split, info, (seed, number), count, image_size, first_image, first_box)
            (part / "annotations" / f"{split}.json").write_bytes(orjson.dumps(document))
            first_image += count
            first_box += len(document["annotations"])
        os.replace(part, folder)
    return folder


def _is_written(folder: Path, info: dict[str, Any]) -> bool:
    """Tell whether the folder has this data set; refuse a folder with different content."""
    try:
        written = orjson.loads((folder / "annotations" / "val.json").read_bytes())["info"]
    except (OSError, ValueError, KeyError, TypeError):
        written = None
    if written == info:
        return True
    if not folder.is_dir() or any(folder.iterdir()):
        raise InputError(f"{folder}: does not contain this sample data set and is not empty; choose a different folder")
    return False


def _render_split(
    folder: Path,
    info: dict[str, Any],
    seed: tuple[int, int],
    count: int,
    image_size: tuple[int, int],
    first_image: int,
    first_box: int,
) -> dict[str, Any]:
    """Write the images of a split and return its COCO document."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        rng = np.random.default_rng((*seed, number))
        width, height = (int(round(side * rng.uniform(0.85, 1.15))) for side in image_size)
        scene = render_scene(rng, width, height)
        image_id = first_image + number
        name = f"{image_id:06d}.jpg"
        options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        data = cv2.imencode(".jpg", cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR), options)[1]
        (folder / name).write_bytes(data.tobytes())
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for item in scene.objects:
            annotations.append(
                {
                    "id": first_box + len(annotations),
                    "image_id": image_id,
                    "category_id": item.label + 1,
                    "bbox": list(item.xywh),
                    "area": int(item.visible.sum()),
                    "iscrowd": int(item.crowd),
                    "segmentation": _rle(item, width, height) if item.crowd else [],
                }
            )
    categories = [{"id": i + 1, "name": name, "supercategory": "shape"} for i, name in enumerate(CLASSES)]
    return {"info": info, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def _rle(item: SceneObject, width: int, height: int) -> dict[str, Any]:
    """Return COCO's uncompressed run lengths of the visible pixels: column by column, background first."""
    mask = np.zeros((height, width), bool)
    x, y, w, h = item.xywh
    mask[y : y + h, x : x + w] = item.visible
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": [height, width], "counts": [0, *counts] if flat[0] else counts}


class _Canvas:
    """The image while it is drawn, and the object that owns each pixel (-1: background)."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        self.rng = rng
        self.image = background(rng, width, height)
        self.owner = np.full((height, width), -1, np.int32)
        self.labels: list[int] = []
        self.drawn: list[int] = []  # pixels of each object before it was covered or cut
        self.visible: list[int] = []  # pixels of each object that are left
        self.crowds: set[int] = set()

    @property
    def size(self) -> tuple[int, int]:
        return self.owner.shape[1], self.owner.shape[0]

    def begin(self, label: int) -> int:
        """Return the number of a new object."""
        self.labels.append(label)
        self.drawn.append(0)
        self.visible.append(0)
        return len(self.labels) - 1

    def window(self, mask: Pixels, left: int, top: int) -> tuple[tuple[slice, slice], Pixels]:
        """Return the part of the canvas under a mask at a position, and the part of the mask on the canvas."""
        width, height = self.size
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + mask.shape[1], width), min(top + mask.shape[0], height)
        return (slice(y0, y1), slice(x0, x1)), mask[y0 - top : y1 - top, x0 - left : x1 - left]

    def most_hidden(self, mask: Pixels, left: int, top: int) -> float:
        """Return the largest hidden share of all objects, the new object included, if a mask is drawn at a position."""
        where, part = self.window(mask, left, top)
        solid = part > 127
        shares = [1 - np.count_nonzero(solid) / np.count_nonzero(mask > 127)]
        for number, count in self._covered(where, solid):
            gone = 1 - (self.visible[number] - count) / self.drawn[number]
            shares.append(1.0 if number in self.crowds else gone)
        return max(shares)

    def _covered(self, where: tuple[slice, slice], solid: BoolArray) -> list[tuple[int, int]]:
        """Return the objects that opaque pixels cover, and the number of covered pixels of each object."""
        counts = np.bincount(self.owner[where][solid] + 1, minlength=1)[1:]
        return [(int(number), int(counts[number])) for number in np.flatnonzero(counts)]

    def draw(self, mask: Pixels, left: int, top: int, number: int, colour: Float64Array) -> None:
        """Paint a mask (0..255) at a position, as the object ``number``."""
        where, part = self.window(mask, left, top)
        paint = fill(self.rng, colour, mask.shape[1], mask.shape[0])
        paint = paint[where[0].start - top :, where[1].start - left :][: part.shape[0], : part.shape[1]]
        alpha = part[:, :, None].astype(np.float32) / 255
        self.image[where] = self.image[where] * (1 - alpha) + paint * alpha
        solid = part > 127
        for other, count in self._covered(where, solid):
            self.visible[other] -= count
        self.owner[where][solid] = number
        self.visible[number] += int(np.count_nonzero(solid))

    def colour_for(self, mask: Pixels, left: int, top: int) -> Float64Array:
        """Return a colour that stands out from the pixels under a mask."""
        where, part = self.window(mask, left, top)
        under = self.image[where][part > 127]
        return contrasting_colour(self.rng, under.mean(0) if len(under) else self.image.mean((0, 1)))


def render_scene(rng: np.random.Generator, width: int, height: int) -> Scene:
    """Render an image of ``width`` x ``height`` pixels with 3 to 8 objects and sometimes a crowd."""
    canvas = _Canvas(rng, width, height)
    largest = min(width, height) / 2
    count = int(rng.integers(_OBJECTS[0], _OBJECTS[1] + 1))
    # Spread over the logarithm of the size, with fewer very small objects, and with both ends of the range included.
    sizes = SMALLEST * (largest / SMALLEST) ** np.clip(1.06 * rng.beta(1.6, 1.2, count) - 0.03, 0, 1)
    # Small objects mostly lie above large objects: otherwise they would rarely be visible.
    for i in np.argsort(-sizes * rng.uniform(0.6, 1.6, count)):
        _place(canvas, int(rng.integers(len(CLASSES))), float(sizes[i]))
    if rng.random() < _CROWD_SHARE:
        _place_crowd(canvas, int(rng.integers(len(CLASSES))))
    grain = 4 * rng.random((height, width, 1), np.float32) - 2
    image = np.clip(canvas.image + grain, 0, 255).astype(np.uint8)
    return Scene(image, _annotated(canvas))


def _place(canvas: _Canvas, label: int, size: float) -> None:
    """Draw an object at a position where it hides little of other objects; draw nothing without such a position."""
    rng = canvas.rng
    mask = shape_mask(rng, label, size)
    height, width = mask.shape
    # Some objects are cut by the border, and a few cover a different object, which is then not annotated.
    over = 0.25 if rng.random() < 0.1 else 0.0
    covers = rng.random() < _COVER_SHARE and canvas.labels != [] and canvas.visible[-1] > 0
    for _ in range(_TRIES):
        left = int(rng.integers(-int(over * width), canvas.size[0] - width + int(over * width) + 1))
        top = int(rng.integers(-int(over * height), canvas.size[1] - height + int(over * height) + 1))
        if covers:
            y, x = np.argwhere(canvas.owner == len(canvas.labels) - 1).mean(0)
            left = int(np.clip(x - width // 2, 0, canvas.size[0] - width))
            top = int(np.clip(y - height // 2, 0, canvas.size[1] - height))
        if covers or canvas.most_hidden(mask, left, top) <= _HIDES:
            number = canvas.begin(label)
            canvas.drawn[number] = int((mask > 127).sum())
            canvas.draw(mask, left, top, number, canvas.colour_for(mask, left, top))
            return


def _place_crowd(canvas: _Canvas, label: int) -> None:
    """Draw a tight group of objects, smaller than all objects with their own box, on free background."""
    rng = canvas.rng
    side = int(rng.integers(28, 48))
    for _ in range(_TRIES):
        left = int(rng.integers(0, canvas.size[0] - side + 1))
        top = int(rng.integers(0, canvas.size[1] - side + 1))
        if (canvas.owner[top : top + side, left : left + side] >= 0).any():
            continue
        number = canvas.begin(label)
        canvas.crowds.add(number)
        for _ in range(int(side * side / 60)):
            mask = shape_mask(rng, label, rng.uniform(6, 9))
            x, y = (int(rng.integers(0, side - extent + 1)) for extent in mask.shape[::-1])
            canvas.draw(mask, left + x, top + y, number, canvas.colour_for(mask, left + x, top + y))
        canvas.drawn[number] = canvas.visible[number]
        return


def shape_mask(rng: np.random.Generator, label: int, size: float) -> Pixels:
    """Return the mask (H, W) 0..255 of a rotated shape whose longer side is ``size`` pixels, cropped to its extent."""
    outline = _outline(rng, label)
    angle = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = outline @ rotation.T
    points -= points.min(0)
    points *= (size - 1) / points.max()
    width, height = (int(np.ceil(extent)) + 3 for extent in points.max(0))
    mask = np.zeros((height, width), np.uint8)
    shift = 4
    fixed = np.round((points + 1) * 2**shift).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, shift)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _outline(rng: np.random.Generator, label: int) -> Float64Array:
    """Return the corners (K, 2) of a shape of about unit radius."""
    if CLASSES[label] == "disc":
        turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        return np.stack([np.cos(turn), rng.uniform(0.75, 1) * np.sin(turn)], 1)
    if CLASSES[label] == "triangle":
        turn = np.deg2rad(np.array([90, 210, 330]) + rng.uniform(-12, 12, 3))
        return np.stack([np.cos(turn), np.sin(turn)], 1)
    a = rng.uniform(0.26, 0.34)  # half the width of an arm
    quarter = np.array([[a, a], [a, 1], [-a, 1]])
    turns = [np.array([[c, -s], [s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    return np.concatenate([quarter @ turn.T for turn in turns])


def _annotated(canvas: _Canvas) -> list[SceneObject]:
    """Return the objects that are visible enough, with tight boxes around their visible pixels."""
    objects = []
    for number, label in enumerate(canvas.labels):
        hidden = 1 - canvas.visible[number] / canvas.drawn[number]
        if hidden > MOST_HIDDEN:
            continue
        visible = canvas.owner == number
        rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
        y, x = int(rows[0]), int(columns[0])
        h, w = int(rows[-1]) - y + 1, int(columns[-1]) - x + 1
        part = visible[y : y + h, x : x + w]
        objects.append(SceneObject(label, (x, y, w, h), part, hidden, number in canvas.crowds))
    return objects
