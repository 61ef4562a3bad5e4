"""quantize: the ONNX network in int8, compared with the float network, with a gate on the loss of AP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kubeyolo.bundle import ONNX, ONNX_INT8, RANGES, WEIGHTS, Bundle
from kubeyolo.config.schema import Config, QuantizeConfig
from kubeyolo.data.dataset import Dataset
from kubeyolo.evaluation.limits import (
    POINT,
    Evidence,
    Numbers,
    Verdict,
    check_drop,
    check_int8_share,
    check_size,
    interval_of_loss,
    points_lost,
)
from kubeyolo.evaluation.predictor import Predictor
from kubeyolo.evaluation.results import EvaluationResult
from kubeyolo.evaluation.runtimes import OnnxRuntime
from kubeyolo.models.named_facts import model_facts
from kubeyolo.models.ranges import read_ranges
from kubeyolo.publishing import derive_once
from kubeyolo.steps import detection
from kubeyolo.steps.outcome import StepOutcome, Stopwatch
from kubeyolo.storage.place import Place
from kubeyolo.storage.workspace import temporary_folder

if TYPE_CHECKING:
    from kubeyolo.quantization.int8 import QuantizationFacts

STEP = "quantize"
CALIBRATION_SPLIT = "train"


def quantize(
    bundle: Bundle, dataset: Dataset, output: Place, config: Config, trained: Bundle | None = None
) -> StepOutcome:
    """Quantize the ONNX network of a bundle, evaluate the int8 network, and compare the loss of AP with its limit.

    Args:
        bundle: A bundle with an ONNX network.
        dataset: The stored data set: split train for the calibration, the split of ``evaluate`` for the metrics.
        output: The folder that receives the new bundle.
        config: Its sections ``quantize`` and ``evaluate`` are used.
        trained: The bundle of the same network after its quantization-aware training; None to choose the ranges from
            calibration images.

    Returns:
        The outcome; it has a failure and no bundle if AP fell by more than ``quantize.max_drop`` points,
        too few convolutions were quantized, or the file is too large.

    Raises:
        InputError: The bundle has no ONNX network, or the data set cannot be used.
    """
    from kubeyolo.report.quantization import quantization_report

    watch, manifest = Stopwatch(), bundle.manifest
    detection.print_exported_size(config)
    config = detection.at_exported_size(config)
    bundle.path(ONNX)
    with temporary_folder("quantize") as folder:
        path = folder / ONNX_INT8
        facts = _quantize(bundle, dataset, path, config) if trained is None else _with_ranges(bundle, trained, path)
        predictor = Predictor(manifest, OnnxRuntime(path, manifest), "int8", config.evaluate.per_batch_size)
        int8_result = detection.evaluate_predictor(predictor, dataset, config).result
        float_result = _float_result(bundle, dataset, config)
        evidence = interval_of_loss(int8_result.resamples, float_result.resamples, "point")
        verdict = judge(facts, float_result.numbers, int8_result.numbers, config.quantize, evidence)
        html = quantization_report(float_result, int8_result, verdict, facts)
        if not verdict.passed:
            return StepOutcome(step=STEP, seconds=watch.seconds, html=html, failure=f"int8: {verdict.failures}")
        kept = {**manifest.metrics, "int8": detection.kept_result(int8_result, dataset.digest, config)}
        published = derive_once(bundle, output / "bundle", {ONNX_INT8: path}, metrics=kept)
    return StepOutcome(
        step=STEP,
        seconds=watch.seconds,
        outputs={"bundle": published},
        metrics={
            "int8": int8_result.numbers,
            "float": float_result.numbers,
            "drop": round(points_lost(int8_result.numbers["AP"], float_result.numbers["AP"]) or 0.0, 4),
            "quantized_convs": round(facts.quantized_share, 4),
            "size_ratio": round(facts.size_ratio, 4),
            "int8_bytes": facts.int8_bytes,
            "checks": verdict.rows,
        },
        html=html,
    )


def judge(
    facts: QuantizationFacts, before: Numbers, after: Numbers, settings: QuantizeConfig, evidence: Evidence = POINT
) -> Verdict:
    """Compare the share of int8 convolutions, the size of the file, and the loss of AP with their limits.

    The loss itself decides for every ``evaluate.judge``, since the limit decides whether the bundle is stored. The
    interval in ``evidence`` is only shown.
    """
    remedy = "use more calibration images or a different quantize.calibration"
    ap = (after.get("AP"), before.get("AP"))
    setting, against = "quantize.max_drop", "the float network"
    return Verdict(
        (
            check_drop(*ap, settings.max_drop, setting, against, remedy=remedy, evidence=evidence),
            check_int8_share(facts.quantized_convs, facts.convs, settings.min_quantized_convs),
            check_size(facts.int8_bytes, facts.float_bytes, settings.max_size_ratio),
        )
    )


def _quantize(bundle: Bundle, dataset: Dataset, path: Path, config: Config) -> QuantizationFacts:
    """Write the int8 network, calibrated on images of the training split."""
    from kubeyolo.quantization.int8 import CalibrationImages, quantize_onnx

    settings = config.quantize
    split = dataset.split(CALIBRATION_SPLIT)
    images = CalibrationImages(split, bundle.manifest, settings.calibration_images, config.train.seed)
    return quantize_onnx(bundle.path(ONNX), path, images, settings.calibration)


def _with_ranges(bundle: Bundle, trained: Bundle, path: Path) -> QuantizationFacts:
    """Write the int8 network with the weights and the ranges of a quantization-aware training."""
    from kubeyolo.quantization.qdq import quantize_trained

    manifest = trained.manifest
    eps = model_facts(manifest.model).bn_eps if manifest.bn_eps is None else manifest.bn_eps
    ranges = read_ranges(trained.path(RANGES))
    return quantize_trained(bundle.path(ONNX), path, ranges, trained.path(WEIGHTS), eps)


def _float_result(bundle: Bundle, dataset: Dataset, config: Config) -> EvaluationResult:
    """Return the metrics of the float ONNX network: from its export, or evaluated again if the settings differ."""
    digest = detection.settings_digest(dataset.digest, config)
    known = detection.recalled_result(bundle.manifest.metrics, "onnx", digest)
    return known or detection.evaluate_bundle(bundle, dataset, detection.at_exported_size(config), "onnx").result
