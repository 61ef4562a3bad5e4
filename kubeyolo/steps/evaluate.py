"""evaluate: the COCO metrics of a network of a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from kubeyolo.bundle import Bundle
from kubeyolo.config.schema import Config, Judge
from kubeyolo.data.dataset import Dataset
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.manifest import DatasetManifest
from kubeyolo.evaluation.brightness import image_brightness
from kubeyolo.evaluation.coco_eval import Detection
from kubeyolo.evaluation.confusion import BACKGROUND, confusion_matrix
from kubeyolo.evaluation.error_analysis import analyse_errors
from kubeyolo.evaluation.intervals import resamples_in
from kubeyolo.evaluation.limits import Verdict, check_least, interval_of, number_warnings
from kubeyolo.evaluation.operating_points import BEST_THRESHOLDS
from kubeyolo.evaluation.results import RuntimeName
from kubeyolo.evaluation.sharing import WHOLE, Share
from kubeyolo.steps import detection
from kubeyolo.steps.error_pictures import error_pictures
from kubeyolo.steps.outcome import StepOutcome, Stopwatch

STEP = "evaluate"
DETECTIONS_NAME = "detections.json"
RESULT_NAME = "result.json"
CONFUSION_NAME = "confusion.json"


def evaluate(
    bundle: Bundle, dataset: Dataset, config: Config, runtime: RuntimeName = "mindspore", share: Share = WHOLE
) -> StepOutcome:
    """Evaluate a network of a bundle on a split of a data set.

    Args:
        bundle: The bundle.
        dataset: The stored data set.
        config: Its section ``evaluate`` is used.
        runtime: The software that runs the network; it decides which file of the bundle is used.
        share: If several processes share the work, the share of process 0.

    Returns:
        The outcome with the documents result.json, detections.json (a COCO results file), confusion.json, and those of
        the error analysis: analysis.json, images.json, suspects.json (a COCO file).

    Raises:
        InputError: The bundle, the data set or the split cannot be used, or they do not fit each other.
    """
    from kubeyolo.report.evaluation import evaluation_report

    watch = Stopwatch()
    evaluated = detection.evaluate_bundle(bundle, dataset, config, runtime, share)
    result, manifest = evaluated.result, dataset.manifest
    title = f"{bundle.manifest.model} on {manifest.name}{result.manner()}"
    index = dataset.index(result.split)
    matrix = confusion_matrix(index, manifest.category_ids, evaluated.detections)
    confusion = {"categories": [*manifest.classes, BACKGROUND], "matrix": matrix.tolist()}
    analysis = analyse_errors(evaluated.matches, evaluated.points, manifest.classes, image_brightness(evaluated.split))
    pictures = error_pictures(evaluated.split, analysis)
    best = {BEST_THRESHOLDS: result.best_thresholds.model_dump() if result.best_thresholds else None}
    counts = {"images": result.images, "boxes": result.boxes, "detections": result.detections}
    warnings = number_warnings(result.numbers)
    return StepOutcome(
        step=STEP,
        seconds=watch.seconds,
        metrics={
            **result.numbers,
            **counts,
            **best,
            "runtime": runtime,
            "title": title,
            "warnings": warnings,
            "intervals": result.resamples.intervals() if result.resamples else {},
            "resamples": result.resamples.model_dump() if result.resamples else None,
        },
        html=evaluation_report(result, evaluated.samples, title, analysis, matrix, pictures),
        documents={
            RESULT_NAME: result.to_json().encode(),
            DETECTIONS_NAME: orjson.dumps(own_ids(evaluated.detections, index, manifest)),
            CONFUSION_NAME: json.dumps(confusion).encode(),
            **analysis.documents(manifest.category_keys or manifest.category_ids),
        },
    )


def own_ids(
    detections: Sequence[Detection], index: SplitIndex, manifest: DatasetManifest
) -> Sequence[Mapping[str, Any]]:
    """Return detections with the ids of the annotation file, if these ids are texts."""
    images, categories = index.image_key, manifest.category_keys
    if images is None and categories is None:
        return detections
    image_names = dict(zip(index.image_id.tolist(), images or index.image_id.tolist(), strict=True))
    category_names = dict(zip(manifest.category_ids, categories or manifest.category_ids, strict=True))
    return [
        {**row, "image_id": image_names[row["image_id"]], "category_id": category_names[row["category_id"]]}
        for row in detections
    ]


def judge(metrics: Mapping[str, Any], min_ap: float, how: Judge = "point") -> Verdict:
    """Compare AP in the metrics of a record with its lower limit; 0 means no limit."""
    if min_ap <= 0:
        return Verdict()
    evidence = interval_of(resamples_in(metrics), "AP", how)
    return Verdict((check_least(metrics, "AP", min_ap, "evaluate.min_ap", evidence),))
