"""COCO metrics of detections, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

from kubeyolo.arrays import Float64Array
from kubeyolo.errors import InputError
from kubeyolo.evaluation.results import COCO_NUMBERS, ClassResult, EvaluationResult

AREA_ALL = 0
IOU_50 = 0
MAX_DETS_100 = 2


class Detection(TypedDict):
    """One row of a COCO results file; ``bbox`` is x, y, width, height in pixels of the original image."""

    image_id: int
    category_id: int
    bbox: list[float]
    score: float


def evaluate_detections(ground_truth: dict[str, Any], detections: Sequence[Detection]) -> EvaluationResult:
    """Evaluate detections against a COCO document (``images``, ``annotations``, ``categories``).

    A metric without ground truth of its kind is None; without detections the metrics are 0.

    Raises:
        InputError: A detection names an image or category that the document does not have.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    _check_ids(ground_truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and its summary
        truth = COCO()
        # pycocotools marks a match by the id of the box, where 0 means no match.
        boxes = [{**box, "id": number} for number, box in enumerate(ground_truth["annotations"], 1)]
        truth.dataset = {**ground_truth, "annotations": boxes}
        truth.createIndex()
        results = COCO()
        results.dataset = _results_document(ground_truth, detections)
        results.createIndex()
        evaluation = COCOeval(truth, results, iouType="bbox")
        if ground_truth["images"]:
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            stats, precision = evaluation.stats, evaluation.eval["precision"]
        else:
            stats = np.full(len(COCO_NUMBERS), -1.0)
            precision = np.full((10, 101, len(evaluation.params.catIds), 4, 3), -1.0)

    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    ordered = [names[category_id] for category_id in evaluation.params.catIds]
    regular = [box for box in ground_truth["annotations"] if not box.get("iscrowd")]
    return EvaluationResult(
        numbers={number.key: _present(value) for number, value in zip(COCO_NUMBERS, stats, strict=True)},
        per_class=_class_results(ordered, evaluation.params.catIds, precision, regular),
        curves=_curves(ordered, precision),
        images=len(ground_truth["images"]),
        boxes=len(regular),
        detections=len(detections),
    )


def _check_ids(ground_truth: dict[str, Any], detections: Sequence[Detection]) -> None:
    """Refuse detections with unknown images or categories, which pycocotools would drop without a message."""
    images = {image["id"] for image in ground_truth["images"]}
    categories = {category["id"] for category in ground_truth["categories"]}
    for number, detection in enumerate(detections):
        if detection["image_id"] not in images:
            raise InputError(
                f"detection {number}: image id {detection['image_id']} is not in the ground truth; "
                "evaluate detections on the split on which they were computed"
            )
        if detection["category_id"] not in categories:
            raise InputError(
                f"detection {number}: category id {detection['category_id']} is not in the ground truth; "
                "use the data set's own category ids"
            )


def _results_document(ground_truth: dict[str, Any], detections: Sequence[Detection]) -> dict[str, Any]:
    """Return detections as a COCO document; unlike ``COCO.loadRes``, accept an empty list."""
    annotations = [
        {**detection, "id": number, "area": detection["bbox"][2] * detection["bbox"][3], "iscrowd": 0}
        for number, detection in enumerate(detections, 1)
    ]
    return {**ground_truth, "annotations": annotations}


def _class_results(
    names: list[str], category_ids: Sequence[int], precision: Float64Array, regular: list[dict[str, Any]]
) -> list[ClassResult]:
    """Return each class's AP and AP50 from precision (IoU, recall, class, area, max detections)."""
    images: dict[int, set[int]] = {category_id: set() for category_id in category_ids}
    boxes = dict.fromkeys(category_ids, 0)
    for box in regular:
        images[box["category_id"]].add(box["image_id"])
        boxes[box["category_id"]] += 1
    return [
        ClassResult(
            name=name,
            AP=_mean_present(precision[:, :, column, AREA_ALL, MAX_DETS_100]),
            AP50=_mean_present(precision[IOU_50, :, column, AREA_ALL, MAX_DETS_100]),
            images=len(images[category_id]),
            boxes=boxes[category_id],
        )
        for column, (name, category_id) in enumerate(zip(names, category_ids, strict=True))
    ]


def _curves(names: list[str], precision: Float64Array) -> dict[str, list[float]]:
    """Return precision at the 101 recall points, IoU .50, of each class that has ground truth."""
    values = precision[IOU_50, :, :, AREA_ALL, MAX_DETS_100].T
    return {name: curve.tolist() for name, curve in zip(names, values, strict=True) if (curve > -1).all()}


def _present(value: float) -> float | None:
    """Return None for pycocotools' -1, which means that there is no ground truth of this kind."""
    return None if value < 0 else float(value)


def _mean_present(values: Float64Array) -> float | None:
    """Return the mean of the values that are not missing (-1), or None."""
    present = values[values > -1]
    return float(present.mean()) if present.size else None
