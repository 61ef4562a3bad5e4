"""Small indices and detections with known boxes."""

from __future__ import annotations

import numpy as np

from kubeyolo.data.index import SplitIndex
from kubeyolo.evaluation.coco_eval import Detection

CATEGORIES = (3, 7)


def index_of(*images: list[tuple[int, tuple[float, float, float, float], bool]]) -> SplitIndex:
    """Make an index of images 100, 101, … with boxes (class, xywh, crowd)."""
    boxes = [box for image in images for box in image]
    return SplitIndex(
        image_id=np.arange(100, 100 + len(images), dtype=np.int64),
        file_name=[f"{i}.jpg" for i in range(len(images))],
        width=np.full(len(images), 100, np.int32),
        height=np.full(len(images), 100, np.int32),
        box_start=np.cumsum([0, *(len(image) for image in images)]).astype(np.int64),
        box_id=np.arange(len(boxes), dtype=np.int64),
        box_class=np.array([box[0] for box in boxes], np.int32),
        box_xywh=np.array([box[1] for box in boxes], np.float64).reshape(-1, 4),
        box_area=np.array([box[1][2] * box[1][3] for box in boxes], np.float64),
        box_crowd=np.array([box[2] for box in boxes], np.bool_),
    )


def found(image: int, category: int, box: list[float], score: float = 0.9) -> Detection:
    return Detection(image_id=image, category_id=category, bbox=box, score=score)


def random_set(
    seed: int, images: int, classes: int, per_image: int, crowd: float = 0.1
) -> tuple[SplitIndex, list[int], list[Detection]]:
    """Return images with random boxes, some images empty, and detections near boxes and elsewhere, of few scores."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, per_image + 1, images)
    total = int(counts.sum())
    wh = rng.uniform(5, 60, (total, 2))
    index = SplitIndex(
        image_id=rng.permutation(images * 3)[:images].astype(np.int64),
        file_name=[f"camera {i % 3}/{i}.jpg" for i in range(images)],
        width=rng.choice([100, 120, 160], images).astype(np.int32),
        height=np.full(images, 100, np.int32),
        box_start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        box_id=np.arange(1, total + 1, dtype=np.int64),
        box_class=rng.integers(0, classes, total).astype(np.int32),
        box_xywh=np.concatenate([rng.uniform(0, 50, (total, 2)), wh], axis=1),
        box_area=wh.prod(axis=1),
        box_crowd=rng.random(total) < crowd,
    )
    categories = [3 * number + 2 for number in range(classes)]
    detections = []
    for i, image_id in enumerate(index.image_id.tolist()):
        rows = index.boxes_of(i)
        near = [
            (int(label), box + rng.normal(0, 6, 4))
            for label, box in zip(index.box_class[rows], index.box_xywh[rows], strict=True)
            for _ in range(rng.integers(0, 4))
        ]
        far = [(int(rng.integers(classes)), rng.uniform(5, 60, 4)) for _ in range(rng.integers(0, per_image + 1))]
        for label, box in [*near, *far]:
            label = label if rng.random() < 0.8 else int(rng.integers(classes))
            xywh = [*box[:2].tolist(), *np.maximum(box[2:], 1).tolist()]
            score = round(float(rng.random()), 1)
            detections.append(Detection(image_id=image_id, category_id=categories[label], bbox=xywh, score=score))
    return index, categories, detections


PLANTED = 10
"""Planted errors of each kind."""


def planted_errors() -> tuple[SplitIndex, list[Detection], dict[str, list[int]]]:
    """Return 10 images for each kind of error and 20 without errors, and the images of each kind.

    Boxes are 20 pixels wide and high. A detection of the right place has an IoU of 1, one moved by 10 pixels an IoU of
    1/3, one moved by 4 pixels an IoU of 2/3.
    """
    box, moved, near, far = (20, 20, 20, 20), [30, 20, 20, 20], [24, 20, 20, 20], [70, 70, 20, 20]
    hit, swapped = (0, list(box)), (1, list(box))
    cases = {
        "": [hit],
        "classification": [swapped],
        "localization": [(0, moved)],
        "both": [hit, (1, moved)],
        "duplicate": [hit, (0, near)],
        "background": [hit, (0, far)],
        "missed": [],
    }
    images: dict[str, list[int]] = {}
    detections = []
    number = 0
    for kind, rows in cases.items():
        images[kind] = list(range(number, number + PLANTED * (1 if kind else 2)))
        for i in images[kind]:
            # The first row scores higher, so that the hit of an image comes before its error.
            detections += [found(100 + i, CATEGORIES[row[0]], row[1], 0.95 - 0.05 * n) for n, row in enumerate(rows)]
        number = images[kind][-1] + 1
    index = index_of(*([[(0, box, False)]] * number), [(1, box, False)])
    detections.append(found(100 + number, CATEGORIES[1], list(box), 0.97))
    return index, detections, images
