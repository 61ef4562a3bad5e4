"""Runs a bundle's network on a split of a data set: COCO metrics, and detections for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kubeyolo.arrays import Float32Array
from kubeyolo.bundle import Bundle, BundleManifest, Preprocessing
from kubeyolo.config.load import config_digest, without_gates
from kubeyolo.config.schema import Config
from kubeyolo.data.class_subset import of_classes
from kubeyolo.data.dataset import Dataset, Split
from kubeyolo.data.manifest import DatasetManifest
from kubeyolo.errors import InputError
from kubeyolo.evaluation.bootstrap import resampled
from kubeyolo.evaluation.coco_eval import Detection
from kubeyolo.evaluation.coco_matches import match_split
from kubeyolo.evaluation.matching import Matches, match_detections
from kubeyolo.evaluation.operating_points import BEST_THRESHOLDS, OperatingPoints, operating_points
from kubeyolo.evaluation.predictor import Predictor, load_predictor, network_input, prepare
from kubeyolo.evaluation.results import EvaluationResult, RuntimeName
from kubeyolo.evaluation.sharing import WHOLE, Share
from kubeyolo.evaluation.split_evaluation import detect_split, evaluate_split
from kubeyolo.report.samples import SampleImage
from kubeyolo.steps.samples import evaluation_samples

_SETTINGS_KEY = "settings_digest"
_ADDED: dict[str, Any] = {"classes": [], "dets_per_class": 0, "nms": "greedy", "rect": False, "tta": False}
"""Keys that were added later, with their defaults."""


@dataclass(frozen=True)
class EvaluatedSplit:
    """The metrics of a split, its detections matched with its boxes, and sample images.

    Attributes:
        result: The metrics, with the best thresholds.
        detections: Rows of a COCO results file.
        samples: Images, each with its ground truth and with its detections.
        split: The split.
        matches: The detections and the boxes of the split, matched.
        points: Precision, recall and F1 over the confidence.
    """

    result: EvaluationResult
    detections: list[Detection]
    samples: list[tuple[SampleImage, SampleImage]]
    split: Split
    matches: Matches
    points: OperatingPoints


def evaluate_bundle(
    bundle: Bundle, dataset: Dataset, config: Config, runtime: RuntimeName, share: Share = WHOLE
) -> EvaluatedSplit:
    """Evaluate a network of a bundle on the split that the configuration names.

    Args:
        bundle: The bundle.
        dataset: The stored data set.
        config: Its section ``evaluate`` is used.
        runtime: What runs the network.
        share: If several processes share the work, the share of process 0.

    Raises:
        InputError: The bundle has no network for the runtime, or the data set has different classes or lacks the split.
    """
    return evaluate_predictor(_predictor(bundle, config, runtime), dataset, config, share)


def detect_share(bundle: Bundle, dataset: Dataset, config: Config, runtime: RuntimeName, share: Share) -> None:
    """Store the detections of the share of a process other than process 0; see :func:`evaluate_bundle`."""
    dataset = of_classes(dataset, config.evaluate.classes)
    split = dataset.split(config.evaluate.split)
    detect_split(_predictor(bundle, config, runtime), split, dataset.manifest, config.evaluate, share=share)


def _predictor(bundle: Bundle, config: Config, runtime: RuntimeName) -> Predictor:
    settings = config.evaluate
    check_size(bundle.manifest, config, runtime)
    size, device = settings.input_size, settings.device_target
    return load_predictor(bundle, runtime, settings.per_batch_size, size, device, settings.tta)


def check_size(manifest: BundleManifest, config: Config, runtime: RuntimeName) -> None:
    """Refuse an image size that is not that of the exported file; the trained network takes any size.

    Raises:
        InputError: The file of the runtime was exported for a different size.
    """
    size, exported = config.evaluate.input_size, manifest.image_size
    if runtime != "mindspore" and size not in (None, exported):
        raise InputError(
            f"evaluate.image_size = {config.evaluate.image_size}: the {runtime} file of this bundle takes images of "
            f"{exported[0]} x {exported[1]} (height x width) only; leave evaluate.image_size out, or evaluate with the "
            "runtime mindspore"
        )


def check_trained(config: Config) -> None:
    """Refuse settings of evaluations without AP for a run that trains, whose later steps compare AP.

    Raises:
        InputError: ``evaluate.test_dev`` is set.
    """
    if config.evaluate.test_dev:
        raise InputError(
            "evaluate.test_dev: a run that trains needs the AP of its networks; leave it out, and make the detections "
            "for test-dev from the published bundle with 'kubeyolo evaluate --test_dev'"
        )


def at_exported_size(config: Config) -> Config:
    """Return a configuration for exported files, which take images of one size: without views and rectangles."""
    fixed = {"image_size": 0, "rect": False, "tta": False}
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update=fixed)})


def print_exported_size(config: Config) -> None:
    """Print a note that exported files are evaluated without views and rectangles, if the configuration has them."""
    asked = [f"evaluate.{key}" for key in ("rect", "tta") if getattr(config.evaluate, key)]
    if asked:
        print(
            f"exported files take images of one size: they are evaluated without {' and '.join(asked)}, which "
            "the evaluation of the trained network uses",
            flush=True,
        )


def evaluate_predictor(predictor: Predictor, dataset: Dataset, config: Config, share: Share = WHOLE) -> EvaluatedSplit:
    """Evaluate a network that is ready to run on the split and the classes that the configuration names."""
    dataset = of_classes(dataset, config.evaluate.classes)
    split = dataset.split(config.evaluate.split)
    result, detections = evaluate_split(predictor, split, dataset.manifest, config.evaluate, share=share)
    return matched_split(result, detections, split, dataset.manifest)


def matched_split(
    result: EvaluationResult, detections: list[Detection], split: Split, manifest: DatasetManifest
) -> EvaluatedSplit:
    """Match the detections of a split with its boxes; add the best thresholds and the resamples to its metrics."""
    matches = match_detections(split.index, manifest.category_ids, detections)
    points = operating_points(matches, manifest.classes)
    result = with_resamples(result, split, manifest, detections)
    result = result.model_copy(update={BEST_THRESHOLDS: points.thresholds})
    samples = evaluation_samples(split, manifest, detections)
    return EvaluatedSplit(result, detections, samples, split, matches, points)


def with_resamples(
    result: EvaluationResult, split: Split, manifest: DatasetManifest, detections: Sequence[Detection]
) -> EvaluationResult:
    """Return a result with AP of resamples of its images, from which its intervals are computed."""
    resamples = resampled(match_split(split.index, manifest.category_ids, detections))
    return result.model_copy(update={"resamples": resamples})


def real_images(predictor: Predictor, split: Split, chosen: Sequence[int]) -> Float32Array:
    """Return images of a split, by their positions, as inputs of the network: (N, 3, H, W) in 0..1."""
    preprocessing = predictor.manifest.preprocessing
    prepared = [prepare(split.read_image(i), predictor.image_size, preprocessing) for i in chosen]
    return network_input(prepared, preprocessing)


def settings_digest(dataset_digest: str, config: Config) -> str:
    """Return a digest of everything except network and device that affects the metrics; gates are excluded.

    It includes the preprocessing: metrics from versions with a different preprocessing are computed again.
    """
    evaluate = config.evaluate.model_dump(mode="json", exclude={"device_target", "engine", "test_dev"})
    # Metrics of versions without these keys had their defaults.
    evaluate = {key: value for key, value in evaluate.items() if key not in _ADDED or value != _ADDED[key]}
    settings = without_gates({"evaluate": evaluate})["evaluate"]
    preprocessing = Preprocessing().model_dump(mode="json")
    return config_digest({"dataset": dataset_digest, "evaluate": settings, "preprocessing": preprocessing})


def kept_result(result: EvaluationResult, dataset_digest: str, config: Config) -> dict[str, Any]:
    """Return a result in the form that a bundle's metrics contain: without curves, with a digest of the settings."""
    kept = result.model_copy(update={"curves": {}}).model_dump(mode="json")
    return {**kept, _SETTINGS_KEY: settings_digest(dataset_digest, config)}


def recalled_result(metrics: dict[str, Any], runtime: RuntimeName, digest: str) -> EvaluationResult | None:
    """Return the result in a bundle's metrics, if it was computed on the same data with the same settings."""
    kept = dict(metrics.get(runtime) or {})
    if kept.pop(_SETTINGS_KEY, None) != digest:
        return None
    return EvaluationResult.model_validate(kept)


def numbers_of(metrics: dict[str, Any], runtimes: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Return the COCO metrics by runtime from the metrics of a step's bundle or of a published bundle."""
    return {name: dict(metrics[name].get("numbers", metrics[name])) for name in runtimes if name in metrics}
