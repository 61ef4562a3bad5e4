"""quantize: the ONNX network in int8, compared with the float network, with a gate on the loss of AP."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubeyolo.arrays import Float32Array
from kubeyolo.bundle import LEFT_OUT, ONNX, ONNX_INT8, RANGES, WEIGHTS, Bundle
from kubeyolo.config.schema import AUTO, NONE, Config, QuantizeConfig
from kubeyolo.data.dataset import Dataset
from kubeyolo.evaluation.limits import (
    POINT,
    Evidence,
    Numbers,
    Verdict,
    check_drop,
    check_int8_share,
    check_measurable,
    check_size,
    interval_of_loss,
    points_lost,
)
from kubeyolo.evaluation.openvino_runtime import OpenvinoRuntime, check_openvino
from kubeyolo.evaluation.paired_speed import PairedSpeed, paired_speed
from kubeyolo.evaluation.predictor import Predictor
from kubeyolo.evaluation.results import EvaluationResult, RuntimeName
from kubeyolo.evaluation.runtimes import OnnxRuntime
from kubeyolo.formats import counted
from kubeyolo.models.named_facts import model_facts
from kubeyolo.models.ranges import read_ranges
from kubeyolo.publishing import derive_once
from kubeyolo.steps import detection
from kubeyolo.steps.outcome import StepOutcome, Stopwatch
from kubeyolo.storage.place import Place
from kubeyolo.storage.workspace import temporary_folder

if TYPE_CHECKING:
    from kubeyolo.quantization.calibration import CalibrationImages, CalibrationSet
    from kubeyolo.quantization.int8 import CalibratedNetwork, QuantizationFacts
    from kubeyolo.quantization.sensitivity import LayerCost

STEP = "quantize"
CALIBRATION_SPLIT = "train"

_RUNTIMES: dict[str, tuple[RuntimeName, type[OnnxRuntime] | type[OpenvinoRuntime]]] = {
    "onnxruntime": ("int8", OnnxRuntime),
    "openvino": ("openvino-int8", OpenvinoRuntime),
}
"""Name and class of the runtime that evaluates the int8 file, by ``quantize.runtime``."""


@dataclass(frozen=True)
class Int8Attempt:
    """An int8 network that was written and evaluated.

    Attributes:
        facts: Its counts and sizes.
        result: Its metrics.
        verdict: Whether it is within the limits.
    """

    facts: QuantizationFacts
    result: EvaluationResult
    verdict: Verdict

    @property
    def loses_too_much(self) -> bool:
        """Whether the loss of AP is beyond its limit, the only limit against which float layers help."""
        return not self.verdict.checks[0].passed


def quantize(
    bundle: Bundle, dataset: Dataset, output: Place, config: Config, trained: Bundle | None = None
) -> StepOutcome:
    """Quantize the ONNX network of a bundle, evaluate the int8 network, and compare the loss of AP with its limit.

    With ``quantize.float_layers = auto``, a network that loses too much is written again with the layers that cost most
    in float.

    Args:
        bundle: A bundle with an ONNX network.
        dataset: The stored data set: split train for the calibration, the split of ``evaluate`` for the metrics.
        output: The folder that receives the new bundle.
        config: Its sections ``quantize`` and ``evaluate`` are used.
        trained: The bundle of the same network after its quantization-aware training; None to choose the ranges from
            calibration images.

    Returns:
        The outcome. If AP fell by more than ``quantize.max_drop`` points, too few convolutions were quantized, the file
        is too large, or nothing can be measured, it has a failure and no bundle; with ``quantize.on_miss = leave_out``
        it has a bundle without an int8 network instead.

    Raises:
        InputError: The bundle has no ONNX network, the data set cannot be used, or the runtime is not installed.
    """
    from kubeyolo.report.quantization import quantization_report

    watch, settings = Stopwatch(), config.quantize
    detection.print_exported_size(config)
    config = detection.at_exported_size(config)
    bundle.path(ONNX)
    if settings.runtime == "openvino":
        check_openvino("quantize.runtime = openvino")
    float_result = _float_result(bundle, dataset, config)
    images: Sequence[Float32Array] = ()
    kinds: CalibrationSet | None = None
    if trained is None:
        images, kinds = _calibration_images(bundle, dataset, config)
    measurable = judge_measurable(float_result.numbers, kinds, settings)
    warnings = kinds.warnings if kinds else []
    attempt, costs, speed = None, [], None
    with temporary_folder("quantize") as folder:
        path = folder / ONNX_INT8
        if measurable.passed:
            compare = partial(_compared, path, bundle, dataset, config, float_result)
            if trained is not None:
                attempt = compare(_with_ranges(bundle, trained, path))
            else:
                network = _calibrated(bundle, images, settings)
                costs = _layer_costs(network, images)
                attempt = _Attempts(network, path, settings, compare).best(costs)
            speed = _speed(bundle, path, settings)
            warnings += [speed.warning] if speed.warning else []
        verdict = attempt.verdict if attempt else measurable
        facts = attempt.facts if attempt else None
        int8_result = attempt.result if attempt else None
        html = quantization_report(
            float_result, int8_result, verdict, facts, costs=costs, speed=speed, warnings=warnings
        )
        if attempt is None or not verdict.passed:
            return _missed(bundle, dataset, output, verdict, settings, warnings, watch, html)
        for line in warnings:
            print(f"{STEP}: {line}", flush=True)
        result, facts = attempt.result, attempt.facts
        earlier = {name: value for name, value in bundle.manifest.metrics.items() if name != LEFT_OUT}
        kept = {**earlier, "int8": detection.kept_result(result, dataset.digest, config)}
        inputs = {"dataset": dataset.digest, **({"trained": trained.digest} if trained else {})}
        published = derive_once(bundle, output / "bundle", {ONNX_INT8: path}, step=STEP, inputs=inputs, metrics=kept)
    return StepOutcome(
        step=STEP,
        seconds=watch.seconds,
        outputs={"bundle": published},
        metrics={
            "int8": result.numbers,
            "float": float_result.numbers,
            "drop": round(points_lost(result.numbers["AP"], float_result.numbers["AP"]) or 0.0, 4),
            "quantized_convs": round(facts.quantized_share, 4),
            "size_ratio": round(facts.size_ratio, 4),
            "int8_bytes": facts.int8_bytes,
            "float_layers": list(facts.float_layers),
            "speed": speed.record() if speed else {},
            "warnings": warnings,
            "checks": verdict.rows,
        },
        html=html,
    )


def judge_measurable(numbers: Numbers, kinds: CalibrationSet | None, settings: QuantizeConfig) -> Verdict:
    """Return the checks that fail because nothing can be measured; none if every loss is allowed.

    Args:
        numbers: COCO metrics of the float network.
        kinds: Counts of the calibration images; None if the ranges were trained.
        settings: The section ``quantize``.
    """
    if settings.max_drop >= 100:
        return Verdict()
    return check_measurable(numbers, kinds.images if kinds else 0, kinds.flat if kinds else 0)


def judge(
    facts: QuantizationFacts, before: Numbers, after: Numbers, settings: QuantizeConfig, evidence: Evidence = POINT
) -> Verdict:
    """Compare the loss of AP, the share of int8 convolutions, and the size of the file with their limits."""
    remedy = "use more calibration images or a different quantize.calibration"
    if not facts.calibration_images:
        remedy = "train longer (quantize.max_epoch), or with a different quantize.lr"
    ap = (after.get("AP"), before.get("AP"))
    setting, against = "quantize.max_drop", "the float network"
    return Verdict(
        (
            check_drop(*ap, settings.max_drop, setting, against, remedy=remedy, evidence=evidence),
            check_int8_share(facts.quantized_convs, facts.convs, settings.min_quantized_convs),
            check_size(facts.int8_bytes, facts.float_bytes, settings.max_size_ratio),
        )
    )


def float_layer_counts(convs: int, settings: QuantizeConfig) -> list[int]:
    """Return how many layers stay float in each further attempt: 1, 2, 4 … up to what the limits allow."""
    most = int(convs * (1 - settings.min_quantized_convs) + 1e-6)
    counts = [2**power for power in range(max(most, 1).bit_length()) if 2**power < most]
    return [*counts, most] if most else []


class _Attempts:
    """Writes int8 networks of a calibrated network and compares them, until one does not lose too much.

    Args:
        network: The calibrated network.
        path: The int8 file, written again by each attempt.
        settings: The section ``quantize``.
        compare: Evaluates the file, and compares it with the float network.
    """

    def __init__(
        self,
        network: CalibratedNetwork,
        path: Path,
        settings: QuantizeConfig,
        compare: Callable[[QuantizationFacts], Int8Attempt],
    ) -> None:
        self._network, self._path, self._settings, self._compare = network, path, settings, compare

    def best(self, costs: Sequence[LayerCost]) -> Int8Attempt:
        """Return the first int8 network that does not lose too much, or the last one that was tried.

        Args:
            costs: What layers cost, the most expensive first.
        """
        settings = self._settings
        words = {AUTO, NONE}.intersection(settings.float_layers)
        attempt = self._attempt(() if words else settings.float_layers)
        if AUTO not in words:
            return attempt
        for count in float_layer_counts(attempt.facts.convs, settings):
            if not attempt.loses_too_much:
                break
            worst = [cost.name for cost in costs[:count]]
            if len(worst) < count:
                print(f"{STEP}: the costs of further layers are not known: measuring them took too long", flush=True)
                break
            kept = f"{counted(count, 'layer')} stay{'s' * (count == 1)} float: {', '.join(worst)}"
            print(f"{STEP}: {attempt.verdict.failures}; next attempt: {kept}", flush=True)
            attempt = self._attempt(worst)
        return attempt

    def _attempt(self, float_layers: Collection[str]) -> Int8Attempt:
        return self._compare(self._network.write(self._path, self._settings.runtime, float_layers))


def _compared(
    path: Path,
    bundle: Bundle,
    dataset: Dataset,
    config: Config,
    before: EvaluationResult,
    facts: QuantizationFacts,
) -> Int8Attempt:
    """Evaluate an int8 file, and compare it with the float network."""
    settings, manifest = config.quantize, bundle.manifest
    name, make = _RUNTIMES[settings.runtime]
    predictor = Predictor(manifest, make(path, manifest), name, config.evaluate.per_batch_size)
    result = detection.evaluate_predictor(predictor, dataset, config).result
    evidence = interval_of_loss(result.resamples, before.resamples, settings.judge, "quantize.judge")
    return Int8Attempt(facts, result, judge(facts, before.numbers, result.numbers, settings, evidence))


def _missed(
    bundle: Bundle,
    dataset: Dataset,
    output: Place,
    verdict: Verdict,
    settings: QuantizeConfig,
    warnings: Sequence[str],
    watch: Stopwatch,
    html: str,
) -> StepOutcome:
    """Return the outcome of a quantization that misses its limits: a failure, or a bundle without an int8 network."""
    if settings.on_miss != "leave_out" or ONNX_INT8 in bundle.manifest.files:
        return StepOutcome(step=STEP, seconds=watch.seconds, html=html, failure=f"int8: {verdict.failures}")
    reason = f"the int8 network is left out: {verdict.failures}"
    print(f"{STEP}: {reason}", flush=True)
    kept = {**bundle.manifest.metrics, LEFT_OUT: {"int8": verdict.failures}}
    metrics: dict[str, Any] = {LEFT_OUT: verdict.failures, "warnings": [reason, *warnings], "checks": verdict.rows}
    published = derive_once(bundle, output / "bundle", {}, step=STEP, inputs={"dataset": dataset.digest}, metrics=kept)
    return StepOutcome(step=STEP, seconds=watch.seconds, outputs={"bundle": published}, metrics=metrics, html=html)


def _calibration_images(bundle: Bundle, dataset: Dataset, config: Config) -> tuple[CalibrationImages, CalibrationSet]:
    """Return the calibration images of the split train, and their counts by kind."""
    from kubeyolo.quantization.calibration import CalibrationImages, count_kinds

    split = dataset.split(CALIBRATION_SPLIT)
    images = CalibrationImages(split, bundle.manifest, config.quantize.calibration_images, config.train.seed)
    return images, count_kinds(images)


def _calibrated(bundle: Bundle, images: Sequence[Float32Array], settings: QuantizeConfig) -> CalibratedNetwork:
    """Return the float network with the ranges of its activations on the images."""
    from kubeyolo.quantization.int8 import calibrated

    return calibrated(bundle.path(ONNX), images, settings.calibration)


def _layer_costs(network: CalibratedNetwork, images: Sequence[Float32Array]) -> list[LayerCost]:
    """Return what each layer costs in int8, the most expensive first."""
    from kubeyolo.quantization.sensitivity import layer_costs

    return layer_costs(network, images)


def _speed(bundle: Bundle, path: Path, settings: QuantizeConfig) -> PairedSpeed:
    """Measure the int8 network against the float network in the runtime that it is written for."""
    make, manifest = _RUNTIMES[settings.runtime][1], bundle.manifest
    networks = (make(bundle.path(ONNX), manifest), make(path, manifest))
    return paired_speed(*networks, manifest.image_size, settings.runtime)


def _with_ranges(bundle: Bundle, trained: Bundle, path: Path) -> QuantizationFacts:
    """Write the int8 network with the weights and the ranges of a quantization-aware training."""
    from kubeyolo.quantization.trained_ranges import quantize_trained

    manifest = trained.manifest
    eps = model_facts(manifest.model).bn_eps if manifest.bn_eps is None else manifest.bn_eps
    ranges = read_ranges(trained.path(RANGES))
    return quantize_trained(bundle.path(ONNX), path, ranges, trained.path(WEIGHTS), eps)


def _float_result(bundle: Bundle, dataset: Dataset, config: Config) -> EvaluationResult:
    """Return the metrics of the float ONNX network: from its export, or evaluated again if the settings differ."""
    digest = detection.settings_digest(dataset.digest, config)
    known = detection.recalled_result(bundle.manifest.metrics, "onnx", digest)
    return known or detection.evaluate_bundle(bundle, dataset, config, "onnx").result
