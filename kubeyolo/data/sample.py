"""A generated data set for first runs: rendered objects on textured backgrounds, in COCO layout.

A box is tight around the visible pixels of its object, and ``area`` is the number of these pixels, as in COCO; objects
of which more than 70 % is hidden are not annotated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import orjson

from kubeyolo.data import lookalikes, shapes
from kubeyolo.data.scene import Scene, SceneObject
from kubeyolo.documents import read_json
from kubeyolo.errors import InputError, check_known
from kubeyolo.regular_files import DOCUMENT_SIZE, read_regular
from kubeyolo.storage.file_errors import file_errors
from kubeyolo.storage.parts import remove_remains
from kubeyolo.storage.workspace import work_folder

_JPEG_QUALITY = 90
_VERSION = 1


@dataclass(frozen=True)
class SampleKind:
    """A kind of generated data set.

    Attributes:
        name: Its name.
        classes: Names of the classes.
        supercategory: COCO's supercategory of all classes.
        train: Default number of training images.
        val: Default number of validation images.
        render: Renders an image of a width and a height.
    """

    name: str
    classes: tuple[str, ...]
    supercategory: str
    train: int
    val: int
    render: Callable[[np.random.Generator, int, int], Scene]

    @property
    def info(self) -> dict[str, str]:
        """Entries of COCO's ``info``; none for shapes, so that data sets of earlier versions are recognized."""
        return {} if self is SHAPES else {"kind": self.name}


MOST_SEED = 2**32 - 1
"""Largest seed, as for ``train.seed``."""

SHAPES = SampleKind("shapes", shapes.CLASSES, "shape", 240, 60, shapes.render_scene)
LOOKALIKE = SampleKind("lookalike", lookalikes.CLASSES, "button", 296, 74, lookalikes.render_scene)
KINDS: Mapping[str, SampleKind] = MappingProxyType({kind.name: kind for kind in (SHAPES, LOOKALIKE)})


def generate_sample_dataset(
    folder: Path,
    seed: int = 0,
    train: int | None = None,
    val: int | None = None,
    image_size: tuple[int, int] = (320, 320),
    kind: str = SHAPES.name,
) -> Path:
    """Write a data set of rendered objects; the same arguments give the same bytes.

    Args:
        folder: The output folder, which is written completely or not at all. If it has this data set already, it is not
            written again.
        seed: Seed of all random choices; each image has a random stream that depends on seed, split and number.
        train: Number of training images; by default the number of the kind.
        val: Number of validation images; by default the number of the kind.
        image_size: Mean width and height; each side varies by 15 %.
        kind: A key of :data:`KINDS`.

    Returns:
        The folder.

    Raises:
        InputError: The folder has different content, or an argument is out of range.
    """
    check_known("kind of sample", kind, KINDS)
    chosen = KINDS[kind]
    train = chosen.train if train is None else train
    val = chosen.val if val is None else val
    if not 0 <= seed <= MOST_SEED:
        raise InputError(f"seed = {seed}: the seed of a sample data set is at least 0 and at most {MOST_SEED}")
    if train < 1 or val < 1 or min(image_size) < 64:
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
        **chosen.info,
    }
    # A killed process may have left its lock next to the complete data set.
    remove_remains(folder.absolute().parent)
    if folder.exists() and _is_written(folder, info):
        return folder
    with file_errors(folder), work_folder(folder.absolute().parent) as part:
        (part / "annotations").mkdir()
        first_image, first_box = 1, 1
        for number, (split, count) in enumerate((("train", train), ("val", val))):
            (part / split).mkdir()
            document = _render_split(part / split, chosen, (seed, number), count, image_size, first_image, first_box)
            (part / "annotations" / f"{split}.json").write_bytes(orjson.dumps({"info": info, **document}))
            first_image += count
            first_box += len(document["annotations"])
        try:
            # An empty folder is replaced.
            os.replace(part, folder)
        except OSError:
            # Another process may have written the same data set in the meantime.
            if not folder.exists() or not _is_written(folder, info):
                raise
    return folder


def _is_written(folder: Path, info: dict[str, Any]) -> bool:
    """Tell whether the folder has this data set; refuse a folder with different content."""
    try:
        path = folder / "annotations" / "val.json"
        written = read_json(read_regular(path, DOCUMENT_SIZE), str(path))["info"]
    except (OSError, InputError, KeyError, TypeError):
        written = None
    if written == info:
        return True
    if not folder.is_dir() or any(folder.iterdir()):
        raise InputError(f"{folder}: does not contain this sample data set and is not empty; choose a different folder")
    return False


def _render_split(
    folder: Path,
    kind: SampleKind,
    seed: tuple[int, int],
    count: int,
    image_size: tuple[int, int],
    first_image: int,
    first_box: int,
) -> dict[str, Any]:
    """Write the images of a split and return its COCO document without ``info``."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        rng = np.random.default_rng((*seed, number))
        width, height = (int(round(side * rng.uniform(0.85, 1.15))) for side in image_size)
        scene = kind.render(rng, width, height)
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
    categories = [
        {"id": i + 1, "name": name, "supercategory": kind.supercategory} for i, name in enumerate(kind.classes)
    ]
    return {"licenses": [], "images": images, "annotations": annotations, "categories": categories}


def _rle(item: SceneObject, width: int, height: int) -> dict[str, Any]:
    """Return COCO's uncompressed run lengths of the visible pixels: column by column, background first."""
    mask = np.zeros((height, width), bool)
    x, y, w, h = item.xywh
    mask[y : y + h, x : x + w] = item.visible
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": [height, width], "counts": [0, *counts] if flat[0] else counts}
