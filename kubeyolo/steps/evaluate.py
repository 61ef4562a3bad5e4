"""evaluate: the COCO numbers of a network of a bundle, and a gate on AP."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubeyolo.config.schema import Config
from kubeyolo.errors import WorkError
from kubeyolo.evaluation.names import RuntimeName
from kubeyolo.evaluation.results import EvaluationResult
from kubeyolo.steps.conditions import conditions_of, finished_under
from kubeyolo.steps.record import Stopwatch, read_record, write_record, write_report
from kubeyolo.storage.integrity import sha256_bytes
from kubeyolo.storage.reference import pin
from kubeyolo.storage.uri import join_uri, read_document, write_document

if TYPE_CHECKING:
    from kubeyolo.data.index import SplitIndex
    from kubeyolo.data.manifest import DatasetManifest
    from kubeyolo.evaluation.coco_eval import Detection

STEP = "evaluate"
DETECTIONS_NAME = "detections.json"
RESULT_NAME = "result.json"
CONFUSION_NAME = "confusion.json"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The numbers, the reference of the record, and the URI of the report."""

    result: EvaluationResult
    record: str
    report: str


def evaluate(bundle: str, dataset: str, output: str, config: Config, runtime: RuntimeName = "mindspore") -> Evaluation:
    """Evaluate a network of a bundle on a split of a data set.

    Args:
        bundle: URI or reference of the bundle.
        dataset: URI or reference of the stored data set.
        output: URI of the folder that receives report.html, result.json, detections.json (a COCO results
            file), confusion.json and metrics.json.
        config: Its section ``evaluate`` counts.
        runtime: Which network of the bundle is run, and by what.

    Raises:
        InputError: The bundle, the data set or the split cannot be used, or do not fit.
        WorkError: AP is below ``evaluate.min_ap``; everything is written before.
    """
    conditions = conditions_of(STEP, bundle, dataset, config, runtime=runtime)
    evaluation = _known(output, conditions) or _measure(bundle, dataset, output, config, runtime, conditions)
    check_gate(
        evaluation.result, config.evaluate.min_ap, str(read_record(evaluation.record).metrics.get("title", STEP))
    )
    return evaluation


def _known(output: str, conditions: dict[str, Any]) -> Evaluation | None:
    known = finished_under(output, STEP, conditions)
    if known is None:
        return None
    result = EvaluationResult.from_json(read_document(join_uri(output, RESULT_NAME)))
    return Evaluation(result=result, record=known.reference, report=known.record.report)


def _measure(
    bundle: str, dataset: str, output: str, config: Config, runtime: RuntimeName, conditions: dict[str, Any]
) -> Evaluation:
    import orjson

    from kubeyolo.bundle import open_bundle
    from kubeyolo.data.dataset import open_dataset
    from kubeyolo.evaluation.confusion import BACKGROUND, confusion_matrix
    from kubeyolo.evaluation.limits import number_warnings
    from kubeyolo.report.evaluation import evaluation_report
    from kubeyolo.steps.detection import evaluate_bundle

    watch = Stopwatch()
    opened, images = open_bundle(bundle), open_dataset(dataset)
    evaluated = evaluate_bundle(opened, images, config, runtime)
    result = evaluated.result
    title = f"{opened.manifest.model} on {images.manifest.name}"
    report = write_report(output, evaluation_report(result, evaluated.samples, title))
    index = images.split(result.split).index
    matrix = confusion_matrix(index, images.manifest.category_ids, evaluated.detections)
    confusion = {"categories": [*images.manifest.classes, BACKGROUND], "matrix": matrix.tolist()}
    documents = {
        "result": (RESULT_NAME, result.to_json().encode()),
        "detections": (DETECTIONS_NAME, orjson.dumps(own_ids(evaluated.detections, index, images.manifest))),
        "confusion": (CONFUSION_NAME, json.dumps(confusion).encode()),
    }
    outputs = {}
    for key, (name, document) in documents.items():
        write_document(join_uri(output, name), document)
        outputs[key] = pin(join_uri(output, name), sha256_bytes(document))
    counts = {"images": result.images, "boxes": result.boxes, "detections": result.detections}
    warnings = number_warnings(result.numbers)
    metrics = {**result.numbers, **counts, "runtime": runtime, "title": title, "warnings": warnings}
    record = write_record(output, STEP, watch.seconds, outputs, metrics, report, conditions)
    return Evaluation(result=result, record=record, report=report)


def own_ids(
    detections: Sequence[Detection], index: SplitIndex, manifest: DatasetManifest
) -> Sequence[Mapping[str, Any]]:
    """Return detections with the ids that the annotations have, where these are texts."""
    images, categories = index.image_key, manifest.category_keys
    if images is None and categories is None:
        return detections
    image_names = dict(zip(index.image_id.tolist(), images or index.image_id.tolist(), strict=True))
    category_names = dict(zip(manifest.category_ids, categories or manifest.category_ids, strict=True))
    return [
        {**row, "image_id": image_names[row["image_id"]], "category_id": category_names[row["category_id"]]}
        for row in detections
    ]


def check_gate(result: EvaluationResult, min_ap: float, title: str) -> None:
    """Refuse a network whose AP is below the least that is wanted.

    Raises:
        WorkError: It is; the message has both numbers.
    """
    ap = result.numbers.get("AP")
    if min_ap > 0 and (ap is None or ap < min_ap):
        shown = "not defined (no ground truth)" if ap is None else f"{ap:.4f}"
        raise WorkError(
            f"{title}: AP is {shown}, below the gate evaluate.min_ap = {min_ap:g}; train longer or lower the gate"
        )
