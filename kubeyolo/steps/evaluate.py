"""evaluate: the COCO metrics of a network of a bundle."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from kubeyolo.bundle import Bundle
from kubeyolo.config.schema import Config, Judge
from kubeyolo.data.class_subset import of_classes
from kubeyolo.data.dataset import Dataset
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.manifest import DatasetManifest
from kubeyolo.errors import InputError
from kubeyolo.evaluation.brightness import image_brightness
from kubeyolo.evaluation.coco_eval import Detection, evaluate_detections
from kubeyolo.evaluation.confusion import BACKGROUND, confusion_matrix
from kubeyolo.evaluation.error_analysis import analyse_errors
from kubeyolo.evaluation.intervals import resamples_in
from kubeyolo.evaluation.limits import Verdict, check_least, interval_of, number_warnings
from kubeyolo.evaluation.notes import crowded_note
from kubeyolo.evaluation.operating_points import BEST_THRESHOLDS
from kubeyolo.evaluation.results import COCO_KEYS, RuntimeName
from kubeyolo.evaluation.results_file import read_detections
from kubeyolo.evaluation.sharing import WHOLE, Share
from kubeyolo.steps import detection
from kubeyolo.steps.error_pictures import error_pictures
from kubeyolo.steps.outcome import StepOutcome, Stopwatch

STEP = "evaluate"
DETECTIONS_NAME = "detections.json"
RESULT_NAME = "result.json"
CONFUSION_NAME = "confusion.json"
TEST_DEV = "detections_test-dev2017_"
"""Start of the names of the files for COCO's test-dev server."""


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
        the error analysis: analysis.json, images.json, suspects.json (a COCO file). With ``evaluate.test_dev`` also
        with the files for COCO's server, and without metrics.

    Raises:
        InputError: The bundle, the data set or the split cannot be used, or they do not fit each other.
    """
    watch = Stopwatch()
    dataset = of_classes(dataset, config.evaluate.classes)
    check_test_dev(dataset, config)
    evaluated = detection.evaluate_bundle(bundle, dataset, config, runtime, share)
    title = f"{bundle.manifest.model} on {dataset.manifest.name}{evaluated.result.manner()}"
    outcome = _outcome(evaluated, dataset, title, watch)
    outcome = replace(outcome, metrics={**outcome.metrics, "runtime": runtime})
    if not config.evaluate.test_dev:
        return outcome
    documents = test_dev_documents(bundle.manifest.model, outcome.documents[DETECTIONS_NAME])
    metrics = {key: value for key, value in outcome.metrics.items() if key not in COCO_KEYS}
    return replace(outcome, metrics={**metrics, "warnings": []}, documents={**outcome.documents, **documents})


def evaluate_file(content: bytes, name: str, dataset: Dataset, config: Config) -> StepOutcome:
    """Evaluate the detections of any program on a split of a data set.

    Args:
        content: Content of a COCO results file.
        name: Name of the file.
        dataset: The stored data set.
        config: Its section ``evaluate`` is used: split, classes, engine and limits.

    Raises:
        InputError: The file cannot be used, or it has detections of another data set or split.
    """
    watch, settings = Stopwatch(), config.evaluate
    dataset = of_classes(dataset, settings.classes)
    split, manifest = dataset.split(settings.split), dataset.manifest
    detections = read_detections(content, name, dataset, settings.split)
    truth = split.index.to_coco(manifest.classes, manifest.category_ids)
    result = evaluate_detections(truth, detections, settings.engine, settings.dets_per_class)
    notes = [note] if (note := crowded_note(result.crowded_images, settings.dets_per_class)) else []
    result = result.model_copy(update={"split": split.name, "notes": notes})
    evaluated = detection.matched_split(result, detections, split, manifest)
    return _outcome(evaluated, dataset, f"{name} on {manifest.name}", watch)


def _outcome(evaluated: detection.EvaluatedSplit, dataset: Dataset, title: str, watch: Stopwatch) -> StepOutcome:
    from kubeyolo.report.evaluation import evaluation_report

    result, manifest = evaluated.result, dataset.manifest
    index = dataset.index(result.split)
    matrix = confusion_matrix(index, manifest.category_ids, evaluated.detections)
    confusion = {"categories": [*manifest.classes, BACKGROUND], "matrix": matrix.tolist()}
    analysis = analyse_errors(evaluated.matches, evaluated.points, manifest.classes, image_brightness(evaluated.split))
    pictures = error_pictures(evaluated.split, analysis)
    best = {BEST_THRESHOLDS: result.best_thresholds.model_dump() if result.best_thresholds else None}
    counts = {"images": result.images, "boxes": result.boxes, "detections": result.detections}
    about = {"runtime": result.runtime, "title": title}
    warnings = [*number_warnings(result.numbers), *result.notes]
    return StepOutcome(
        step=STEP,
        seconds=watch.seconds,
        metrics={
            **result.numbers,
            **result.additional_numbers,
            **counts,
            **best,
            **about,
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


def test_dev_names(model: str) -> tuple[str, str]:
    """Return the names that COCO's test-dev server wants: of the JSON, and of its zip."""
    stem = f"{TEST_DEV}{model}_results"
    return f"{stem}.json", f"{stem}.zip"


def test_dev_documents(model: str, detections: bytes) -> dict[str, bytes]:
    """Return the results file for the test-dev server and its zip by name; equal results give equal bytes."""
    name, archive = test_dev_names(model)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = 0o644 << 16
        file.writestr(entry, detections, zipfile.ZIP_DEFLATED)
    return {name: detections, archive: packed.getvalue()}


def check_test_dev(dataset: Dataset, config: Config) -> None:
    """Refuse the files for test-dev where AP can be computed, or is asked for.

    Raises:
        InputError: The split has annotations, or a setting needs AP.
    """
    settings = config.evaluate
    if not settings.test_dev:
        return
    split = dataset.manifest.splits.get(settings.split)
    if split is not None and split.boxes:
        raise InputError(
            f"evaluate.test_dev: the split {settings.split} of data set {dataset.manifest.name!r} has annotations, and "
            "detections for test-dev are made from images without annotations; name their split, or leave test_dev "
            f"out: {DETECTIONS_NAME} is a COCO results file, too"
        )
    asked = {"min_ap": settings.min_ap, "dets_per_class": settings.dets_per_class}
    for key, value in asked.items():
        if value:
            raise InputError(
                f"evaluate.{key} = {value}: without annotations there is no AP; leave it out with evaluate.test_dev"
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
