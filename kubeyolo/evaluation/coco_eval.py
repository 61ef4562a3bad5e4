"""COCO metrics of detections: ids become numbers, an engine matches the boxes, and its curves become metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, TypedDict

import numpy as np

from kubeyolo.arrays import Float64Array, Int64Array
from kubeyolo.config.schema import EngineName
from kubeyolo.errors import InputError
from kubeyolo.evaluation.engines import AREA_ALL, AREAS, IOU_50, IOU_75, MAX_DETS, Boxes, Curves, accumulate
from kubeyolo.evaluation.results import COCO_NUMBERS, ClassResult, CocoNumber, EvaluationResult, additional_coco_numbers

COCO_LIMIT = MAX_DETS[-1]
"""Detections of a class in an image that AP counts."""

_BOX_NUMBERS = 4
_IOUS = {"0.50:0.95": slice(None), "0.50": slice(IOU_50, IOU_50 + 1), "0.75": slice(IOU_75, IOU_75 + 1)}


class Detection(TypedDict):
    """One row of a COCO results file; ``bbox`` is x, y, width, height in pixels of the original image."""

    image_id: int
    category_id: int
    bbox: list[float]
    score: float


def evaluate_detections(
    ground_truth: dict[str, Any],
    detections: Sequence[Detection],
    engine: EngineName = "hotcoco",
    dets_per_class: int = 0,
) -> EvaluationResult:
    """Evaluate detections against a COCO document (``images``, ``annotations``, ``categories``).

    A metric without ground truth of its kind is None; without detections the metrics are 0.

    Args:
        ground_truth: The document.
        detections: The detections.
        engine: The program that computes the metrics.
        dets_per_class: An additional limit of the detections of a class in an image, for the metrics of
            :func:`kubeyolo.evaluation.results.additional_coco_numbers`; 0 for no additional metrics.

    Raises:
        InputError: A detection names an image or category that the document does not have, or its box or score is not
            finite.
    """
    images = sorted(image["id"] for image in ground_truth["images"])
    categories = sorted(ground_truth["categories"], key=itemgetter("id"))
    category_ids = [category["id"] for category in categories]
    truth = _annotated(ground_truth["annotations"], images, category_ids)
    found = _detected(detections, images, category_ids)
    limits = sorted({*MAX_DETS, dets_per_class} - {0})
    curves = accumulate(engine, len(images), len(categories), truth, found, limits)
    at = limits.index(COCO_LIMIT)
    precision = curves.precision[:, :, :, AREA_ALL, at]
    names = [category["name"] for category in categories]
    additional = additional_coco_numbers(dets_per_class) if dets_per_class else ()
    return EvaluationResult(
        numbers={number.key: _value(number, curves, limits) for number in COCO_NUMBERS},
        additional_numbers={number.key: _value(number, curves, limits) for number in additional},
        per_class=_class_results(names, precision, truth),
        curves=_curves(names, precision),
        images=len(images),
        boxes=int((~truth.crowd).sum()),
        detections=len(detections),
        crowded_images=crowded_images(truth.image[~truth.crowd], truth.category[~truth.crowd]),
    )


def crowded_images(image: Int64Array, category: Int64Array) -> int:
    """Return the number of images with more than 100 boxes of a class, by the image and the class of each box (B,)."""
    if not len(image):
        return 0
    pairs, counts = np.unique(np.stack([image, category]), axis=1, return_counts=True)
    return len(np.unique(pairs[0, counts > COCO_LIMIT]))


def _annotated(annotations: Sequence[dict[str, Any]], images: Sequence[int], categories: Sequence[int]) -> Boxes:
    return Boxes.annotated(
        image=_positions(
            map(itemgetter("image_id"), annotations),
            images,
            lambda n, key: f"annotation {n}: image id {key} is not in the list of images",
        ),
        category=_positions(
            map(itemgetter("category_id"), annotations),
            categories,
            lambda n, key: f"annotation {n}: category id {key} is not in the list of categories",
        ),
        xywh=_xywh(annotations),
        area=np.array([box["area"] for box in annotations], np.float64),
        crowd=np.array([bool(box.get("iscrowd")) for box in annotations], np.bool_),
    )


def _detected(detections: Sequence[Detection], images: Sequence[int], categories: Sequence[int]) -> Boxes:
    """Return detections as arrays, in their order.

    Unknown images and categories are refused: pycocotools would drop them without a message.
    """
    image = _positions(
        map(itemgetter("image_id"), detections),
        images,
        lambda number, key: (
            f"detection {number}: image id {key} is not in the ground truth; "
            "evaluate detections on the split on which they were computed"
        ),
    )
    category = _positions(
        map(itemgetter("category_id"), detections),
        categories,
        lambda number, key: (
            f"detection {number}: category id {key} is not in the ground truth; use the data set's own category ids"
        ),
    )
    xywh = _xywh(detections)
    score = np.fromiter(map(itemgetter("score"), detections), np.float64, len(detections))
    finite = np.isfinite(xywh).all(1) & np.isfinite(score)
    if not finite.all():
        number = int(np.flatnonzero(~finite)[0])
        raise InputError(
            f"detection {number}: score {score[number]:g}, bbox {xywh[number].tolist()}; "
            "scores and boxes must be finite numbers"
        )
    return Boxes.detected(image, category, xywh, score)


def _positions(ids: Iterable[int], known: Sequence[int], refusal: Callable[[int, int], str]) -> Int64Array:
    """Return the position of each id among the known ids (B,)."""
    position = {each: number for number, each in enumerate(known)}
    found = []
    for number, each in enumerate(ids):
        if each not in position:
            raise InputError(refusal(number, each))
        found.append(position[each])
    return np.array(found, np.int64)


def _xywh(rows: Sequence[Any]) -> Float64Array:
    """Return the boxes of rows (B, 4)."""
    numbers = chain.from_iterable(map(itemgetter("bbox"), rows))
    return np.fromiter(numbers, np.float64, len(rows) * _BOX_NUMBERS).reshape(-1, _BOX_NUMBERS)


def _value(number: CocoNumber, curves: Curves, limits: Sequence[int]) -> float | None:
    """Return a metric: the mean of precision or recall over what it averages."""
    area, at = AREAS.index(number.area), limits.index(number.max_det)
    values = curves.precision if number.kind == "AP" else curves.recall
    return _mean_present(values[_IOUS[number.iou], ..., area, at])


def _class_results(names: list[str], precision: Float64Array, truth: Boxes) -> list[ClassResult]:
    """Return each class's AP and AP50 from precision (IoU, recall, class)."""
    regular = ~truth.crowd
    boxes = np.bincount(truth.category[regular], minlength=len(names))
    pairs = np.unique(np.stack([truth.image, truth.category])[:, regular], axis=1)
    images = np.bincount(pairs[1], minlength=len(names))
    return [
        ClassResult(
            name=name,
            AP=_mean_present(precision[:, :, column]),
            AP50=_mean_present(precision[IOU_50, :, column]),
            images=int(images[column]),
            boxes=int(boxes[column]),
        )
        for column, name in enumerate(names)
    ]


def _curves(names: list[str], precision: Float64Array) -> dict[str, list[float]]:
    """Return precision at the 101 recall points, IoU .50, of each class that has ground truth."""
    values = precision[IOU_50].T
    return {name: curve.tolist() for name, curve in zip(names, values, strict=True) if (curve > -1).all()}


def _mean_present(values: Float64Array) -> float | None:
    """Return the mean of the values that are not missing (-1), or None."""
    present = values[values > -1]
    return float(present.mean()) if present.size else None
