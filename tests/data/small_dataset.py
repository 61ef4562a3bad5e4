"""A small data set in COCO layout, to be changed by tests before it is written."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SIZES = ((40, 30), (32, 48), (64, 64))


def encoded_image(width: int, height: int, seed: int, extension: str = ".jpg") -> bytes:
    """Return a noisy image file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(extension, pixels)[1].tobytes()


def split_document(first_image: int, first_box: int) -> dict[str, Any]:
    """Return annotations of three images with three boxes, one of them a crowd; the last image has none."""
    images = [
        {"id": first_image + i, "file_name": f"{first_image + i:03d}.jpg", "width": w, "height": h}
        for i, (w, h) in enumerate(SIZES)
    ]
    boxes = [(0, 7, [1.5, 2.25, 10.0, 12.5], 0), (0, 3, [20, 5, 15, 20], 0), (1, 7, [0, 0, 32, 48], 1)]
    annotations = [
        {
            "id": first_box + n,
            "image_id": first_image + image,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3] / 2,
            "iscrowd": crowd,
        }
        for n, (image, category, box, crowd) in enumerate(boxes)
    ]
    categories = [{"id": 7, "name": "nut"}, {"id": 3, "name": "bolt"}]
    return {"images": images, "annotations": annotations, "categories": categories}


@dataclass
class SmallDataset:
    """The documents and files of a data set; ``write`` puts them into a folder."""

    train: dict[str, Any] = field(default_factory=lambda: split_document(1, 100))
    val: dict[str, Any] = field(default_factory=lambda: split_document(11, 200))

    def write(self, folder: Path) -> Path:
        (folder / "annotations").mkdir(parents=True, exist_ok=True)
        for split, document in (("train", self.train), ("val", self.val)):
            (folder / split).mkdir(exist_ok=True)
            (folder / "annotations" / f"{split}.json").write_text(json.dumps(document))
            for image, (width, height) in zip(split_document(1, 1)["images"], SIZES, strict=True):
                number = image["id"] + (10 if split == "val" else 0)
                (folder / split / f"{number:03d}.jpg").write_bytes(encoded_image(width, height, number))
        return folder
