"""Eight photographs that a detector learns by heart, and the settings of each model for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

IMAGES = 8

COMMON = {
    "train.image_size": 128,
    "train.per_batch_size": IMAGES,
    "train.optimizer": "adamw",
    "train.lr": 0.001,
    "train.lr_scheduler": "cosine_annealing",
    "train.warmup_bias_lr": 0.0,
    "train.warmup_steps": 20,
    "train.weight_decay": 0.0,
    "train.log_interval": 10,
    "train.val_interval": 50,
    "augment.mosaic": 0.0,
    "augment.scale": 0.0,
    "augment.translate": 0.0,
    "augment.fliplr": 0.0,
    "augment.hsv_h": 0.0,
    "augment.hsv_s": 0.0,
    "augment.hsv_v": 0.0,
    "data.workers": 1,
}
"""The same images in each step, without augmentation; the loss and its gains are the model's."""

MODELS: dict[str, dict[str, Any]] = {
    "yolov3": {"train.max_epoch": 150},
    "yolov4": {"train.max_epoch": 150},
    "yolov4-tiny": {"train.max_epoch": 300},
    "yolov4-csp": {"train.max_epoch": 150},
    "yolov5s": {"train.max_epoch": 300},
    "yolov4-p5": {"train.max_epoch": 150},
}
"""Schedules short enough for a processor; each network has its published width and depth."""


def write_eight_images(source: Path, folder: Path) -> Path:
    """Write the images of a COCO data set whose smallest box is largest, as both the split train and the split val.

    Args:
        source: Folder of the data set, with its split train.
        folder: Folder of the new data set; has the classes that occur in the images, and no others.
    """
    document = json.loads((source / "annotations" / "train.json").read_text())
    boxes: dict[int, list[dict[str, Any]]] = {}
    for one in document["annotations"]:
        boxes.setdefault(one["image_id"], []).append(one)

    def smallest_side(image: dict[str, Any]) -> float:
        sides = [min(one["bbox"][2:]) for one in boxes[image["id"]]]
        return min(sides) / max(image["width"], image["height"])

    described = [image for image in document["images"] if image["id"] in boxes]
    chosen = sorted(described, key=smallest_side, reverse=True)[:IMAGES]
    annotations = [one for image in chosen for one in boxes[image["id"]]]
    used = {one["category_id"] for one in annotations}
    categories = [one for one in document["categories"] if one["id"] in used]
    text = json.dumps({"images": chosen, "annotations": annotations, "categories": categories})
    (folder / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (folder / "annotations" / f"{split}.json").write_text(text)
        (folder / split).mkdir()
        for image in chosen:
            shutil.copy(source / "train" / image["file_name"], folder / split)
    return folder
