"""Images with one bright rectangle each, and a runtime that finds it without a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kubeyolo.arrays import Float32Array, Pixels
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.manifest import DatasetManifest
from kubeyolo.evaluation.predictor import Predictor, Thresholds, detect_prepared, prepare
from kubeyolo.evaluation.runtimes import Runtime
from tests.export.tiny_detector import CLASSES, SIZE, manifest

CATEGORY_IDS = (3, 5, 9)
COLD = -12.0


class RectangleSplit:
    """A split of generated images; the class of a rectangle is its colour channel."""

    name = "val"

    def __init__(self, images: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        width, height = rng.integers(60, 200, images), rng.integers(60, 200, images)
        size = np.stack([width * rng.uniform(0.3, 0.6, images), height * rng.uniform(0.3, 0.6, images)], 1).round()
        place = np.floor(rng.uniform(0, 1, (images, 2)) * (np.stack([width, height], 1) - size))
        numbers = np.arange(images, dtype=np.int64)
        self.index = SplitIndex(
            image_id=numbers * 7 + 100,
            file_name=[f"{number}.png" for number in range(images)],
            width=width.astype(np.int32),
            height=height.astype(np.int32),
            box_start=np.arange(images + 1, dtype=np.int64),
            box_id=numbers + 1,
            box_class=rng.integers(0, 3, images).astype(np.int32),
            box_xywh=np.concatenate([place, size], 1),
            box_area=size.prod(1),
            box_crowd=np.zeros(images, bool),
        )
        self.read: list[int] = []

    def read_image(self, i: int) -> np.ndarray:
        self.read.append(i)
        image = np.full((self.index.height[i], self.index.width[i], 3), 114, np.uint8)
        x, y, w, h = self.index.box_xywh[i].astype(int)
        image[y : y + h, x : x + w] = 0
        image[y : y + h, x : x + w, self.index.box_class[i]] = 255
        return image


def dataset_manifest(**updates) -> DatasetManifest:
    values = {"name": "rectangles", "source": "here", "digest": "0", "classes": CLASSES, "category_ids": CATEGORY_IDS}
    return DatasetManifest(**{**values, "splits": {}, **updates})


class RectangleRuntime(Runtime):
    """Raw outputs of a network that finds the rectangle perfectly, one detection at stride 8."""

    def __init__(self, batch_size: int | None = None) -> None:
        self.batch_size = batch_size
        self.shapes: list[tuple[int, ...]] = []

    def raw(self, images):
        self.shapes.append(images.shape)
        rows, columns = images.shape[2] // 8, images.shape[3] // 8
        levels = [
            np.full((len(images), 3, rows // scale, columns // scale, 8), COLD, np.float32) for scale in (1, 2, 4)
        ]
        for number, image in enumerate(images):
            found = np.argwhere(image.max(0) > 0.8)
            if len(found):
                self._place(levels[0][number, 2], found, int(image[:, *found[len(found) // 2]].argmax()))
        return levels

    @staticmethod
    def _place(cells, found, label: int) -> None:
        (top, left), (bottom, right) = found.min(0), found.max(0) + 1
        centre, size = np.array([left + right, top + bottom]) / 2, np.array([right - left, bottom - top])
        column, row = (centre // 8).astype(int)
        centre_probability = ((centre / 8 - (column, row)) + 0.5) / 2
        # The third anchor of stride 8 is 33 x 23 pixels, and no side may be more than four times as long.
        size_probability = np.sqrt(size / (33.0, 23.0)) / 2
        probability = np.concatenate([centre_probability, size_probability, [0.9]])
        cells[row, column, :5] = np.log(probability / (1 - probability))
        cells[row, column, 5 + label] = 5.0


__all__ = ["CATEGORY_IDS", "SIZE", "RectangleRuntime", "RectangleSplit", "dataset_manifest", "manifest"]


def detect(predictor: Predictor, images: Sequence[Pixels], **thresholds: float) -> list[Float32Array]:
    """Find objects in RGB images (h, w, 3) of any size."""
    prepared = [prepare(image, predictor.image_size, predictor.manifest.preprocessing) for image in images]
    return detect_prepared(predictor, prepared, Thresholds(**thresholds))
