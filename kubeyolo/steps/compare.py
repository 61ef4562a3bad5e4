"""compare: two bundles on the same images, with the paired interval of their difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from kubeyolo.bundle import Bundle
from kubeyolo.config.schema import Config
from kubeyolo.data.dataset import Dataset, Split
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.manifest import DatasetManifest
from kubeyolo.documents import read_large_json
from kubeyolo.errors import InputError
from kubeyolo.evaluation.coco_eval import Detection
from kubeyolo.evaluation.coco_matches import match_split
from kubeyolo.evaluation.comparison import Difference, ImageDifference, MatchedComparison, compare_matches
from kubeyolo.evaluation.intervals import LEVEL, RESAMPLES, Interval
from kubeyolo.evaluation.results import COCO_KEYS, EvaluationResult, RuntimeName
from kubeyolo.report.samples import Box, SampleImage
from kubeyolo.steps.evaluate import DETECTIONS_NAME, RESULT_NAME
from kubeyolo.steps.outcome import StepOutcome, Stopwatch, StoredOutcome
from kubeyolo.steps.samples import truth_boxes

STEP = "compare"
COMPARISON_NAME = "comparison.json"
SHOWN_IMAGES = 8
LISTED_IMAGES = 50


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network to compare: its bundle, the configuration of its evaluation, and its runtime."""

    bundle: Bundle
    config: Config
    runtime: RuntimeName


@dataclass(frozen=True)
class Compared:
    """A bundle in a comparison: its result and its detections on the split, with the ids of the index."""

    bundle: Bundle
    result: EvaluationResult
    detections: Sequence[Detection]

    @property
    def label(self) -> str:
        """Description of the network: model, runtime, and name of the bundle's folder."""
        return f"{self.bundle.manifest.model} in {self.result.runtime} ({self.bundle.place.name})"


def check_comparable(networks: tuple[Network, Network]) -> None:
    """Refuse networks that would be evaluated on different splits or classes.

    Raises:
        InputError: The splits or the classes differ.
    """
    splits = [each.config.evaluate.split for each in networks]
    if splits[0] != splits[1]:
        raise InputError(
            f"{networks[0].bundle.uri} is evaluated on the split {splits[0]!r}, {networks[1].bundle.uri} on "
            f"{splits[1]!r}; give --split, so that both are evaluated on the same images"
        )
    classes = [", ".join(each.config.evaluate.classes) or "all classes" for each in networks]
    if classes[0] != classes[1]:
        raise InputError(
            f"evaluate.classes: {networks[0].bundle.uri} is evaluated on {classes[0]}, {networks[1].bundle.uri} on "
            f"{classes[1]}; give --set evaluate.classes=NAMES, so that both are evaluated on the same classes"
        )


def compare(bundles: tuple[Bundle, Bundle], dataset: Dataset, evaluated: tuple[StoredOutcome, ...]) -> StepOutcome:
    """Compare two bundles that have been evaluated on the same split.

    Args:
        bundles: The bundles.
        dataset: The stored data set.
        evaluated: The outcomes of their evaluations.

    Returns:
        The outcome with the document comparison.json.
    """
    from kubeyolo.report.comparison import comparison_report, decision_text

    watch, manifest = Stopwatch(), dataset.manifest
    results = [EvaluationResult.from_json(each.document(RESULT_NAME)) for each in evaluated]
    split = dataset.split(results[0].split)
    detections = [read_large_json(each.document(DETECTIONS_NAME), DETECTIONS_NAME) for each in evaluated]
    rows = [index_ids(each, split.index, manifest) for each in detections]
    first, second = (Compared(*each) for each in zip(bundles, results, rows, strict=True))
    ids = manifest.category_ids
    matches = (match_split(split.index, ids, first.detections), match_split(split.index, ids, second.detections))
    found = compare_matches(*matches, list(manifest.classes))
    numbers = _numbers(first.result, second.result, found)
    document = _document((first, second), numbers, found, split)
    document["verdict"] = decision_text(numbers[0], found.resamples[0].images_with_objects)
    samples = [_pictures(each, (first, second), found, split, manifest) for each in found.images[:SHOWN_IMAGES]]
    ap = numbers[0]
    return StepOutcome(
        step=STEP,
        seconds=watch.seconds,
        metrics={
            "first": first.bundle.reference,
            "second": second.bundle.reference,
            "title": f"{first.label} and {second.label} on {manifest.name}",
            "split": split.name,
            "images": len(split),
            "AP of the first": ap.first,
            "AP of the second": ap.second,
            "difference of AP, points": None if ap.difference is None else round(100 * ap.difference, 4),
            "interval, points": interval_points(ap.interval),
            "decision": ap.decision,
        },
        html=comparison_report((first.label, second.label), numbers, found, document, samples),
        documents={COMPARISON_NAME: orjson.dumps(document, option=orjson.OPT_INDENT_2)},
    )


def index_ids(
    detections: Sequence[dict[str, Any]], index: SplitIndex, manifest: DatasetManifest
) -> Sequence[Detection]:
    """Return stored detections with the ids of the index, if the ids of the annotation file are texts."""
    images, categories = index.image_key, manifest.category_keys
    if images is None and categories is None:
        return detections  # type: ignore[return-value]
    image_ids = dict(zip(images or index.image_id.tolist(), index.image_id.tolist(), strict=True))
    category_ids = dict(zip(categories or manifest.category_ids, manifest.category_ids, strict=True))
    return [
        Detection(
            image_id=image_ids[row["image_id"]],
            category_id=category_ids[row["category_id"]],
            bbox=row["bbox"],
            score=row["score"],
        )
        for row in detections
    ]


def interval_points(interval: Interval | None) -> list[float] | None:
    """Return both ends of an interval of AP in points."""
    return None if interval is None else [round(100 * interval.low, 4), round(100 * interval.high, 4)]


def _numbers(first: EvaluationResult, second: EvaluationResult, found: MatchedComparison) -> list[Difference]:
    """Return the 12 COCO metrics of both results; AP and AP50 have the interval of their difference."""
    intervals = {each.name: each.interval for each in found.numbers}
    return [Difference(key, first.numbers.get(key), second.numbers.get(key), intervals.get(key)) for key in COCO_KEYS]


def _document(
    both: tuple[Compared, Compared], numbers: Sequence[Difference], found: MatchedComparison, split: Split
) -> dict[str, Any]:
    """Return the comparison as JSON values; differences are the second minus the first, in points."""
    names = dict(zip(split.index.image_id.tolist(), split.index.file_name, strict=True))
    return {
        "bundles": [
            {
                "bundle": each.bundle.reference,
                "model": each.bundle.manifest.model,
                "runtime": each.result.runtime,
                "image_size": each.result.image_size,
                "threshold": threshold,
                "intervals": resamples.intervals(),
            }
            for each, threshold, resamples in zip(both, found.thresholds, found.resamples, strict=True)
        ],
        "split": split.name,
        "images": len(split),
        "images_with_objects": found.resamples[0].images_with_objects,
        "level": LEVEL,
        "resamples": min(len(each.array("AP")) - 1 for each in found.resamples) if len(split) else RESAMPLES,
        "decision": numbers[0].decision,
        "numbers": [_row(each) for each in numbers],
        "classes": [_row(each) for each in found.classes],
        "images_that_differ": len(found.images),
        "most_different": [
            {
                "image_id": each.image_id,
                "file_name": names[each.image_id],
                "first": asdict(each.first),
                "second": asdict(each.second),
            }
            for each in found.images[:LISTED_IMAGES]
        ],
    }


def _row(each: Difference) -> dict[str, Any]:
    points = None if each.difference is None else round(100 * each.difference, 4)
    interval = interval_points(each.interval)
    return {"name": each.name, "first": each.first, "second": each.second, "points": points, "interval": interval}


def _pictures(
    each: ImageDifference,
    both: tuple[Compared, Compared],
    found: MatchedComparison,
    split: Split,
    manifest: DatasetManifest,
) -> tuple[SampleImage, ...]:
    """Return an image three times: with its annotated boxes, and with the detections of each model."""
    names = dict(zip(manifest.category_ids, manifest.classes, strict=True))
    i = split.index.image_id.tolist().index(each.image_id)
    image, name = split.read_image(i), split.index.file_name[i]
    pictures = [SampleImage(image, truth_boxes(split, i, manifest.classes), f"{name}: ground truth")]
    for compared, threshold, mark in zip(both, found.thresholds, "AB", strict=True):
        boxes = []
        for row in compared.detections:
            if row["image_id"] == each.image_id and row["score"] >= threshold:
                x, y, width, height = row["bbox"]
                boxes.append(Box((x, y, x + width, y + height), names[row["category_id"]], score=row["score"]))
        pictures.append(SampleImage(image, boxes, f"{name}: {mark}"))
    return tuple(pictures)
