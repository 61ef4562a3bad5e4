"""quantize: the ONNX network in int8, compared with the float one, with a gate on what was lost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubeyolo.bundle import ONNX, ONNX_INT8, Bundle
from kubeyolo.config.schema import Config, QuantizeConfig
from kubeyolo.evaluation.results import EvaluationResult
from kubeyolo.steps.conditions import conditions_of, finished_under
from kubeyolo.steps.derived import derive_once
from kubeyolo.steps.record import Stopwatch, write_record, write_report
from kubeyolo.storage.uri import join_uri
from kubeyolo.storage.workspace import temporary_folder

if TYPE_CHECKING:
    from kubeyolo.data.dataset import Dataset
    from kubeyolo.quantization.int8 import QuantizationFacts

STEP = "quantize"
CALIBRATION_SPLIT = "train"


@dataclass(frozen=True, kw_only=True)
class QuantizedModel:
    """References of the bundle with the int8 network and of the record."""

    bundle: str
    record: str


def quantize(bundle: str, dataset: str, output: str, config: Config) -> QuantizedModel:
    """Quantize the ONNX network of a bundle after training, evaluate it, and gate what was lost.

    Args:
        bundle: URI or reference of a bundle with an ONNX network.
        dataset: URI or reference of the stored data set: images of train calibrate, the split of ``evaluate`` measures.
        output: URI of the folder that receives the new bundle, report.html and metrics.json.
        config: Its sections ``quantize`` and ``evaluate`` count.

    Raises:
        InputError: The bundle has no ONNX network, or the data set cannot be used.
        WorkError: AP fell by more than ``quantize.max_drop`` points, too few convolutions were quantized, or the file
            is too large; the report is written before, the bundle is not.
    """
    from kubeyolo.bundle import open_bundle
    from kubeyolo.data.dataset import open_dataset
    from kubeyolo.evaluation.predictor import Predictor
    from kubeyolo.evaluation.runtimes import OnnxRuntime
    from kubeyolo.quantization.gate import check_accuracy, check_quantization
    from kubeyolo.report.quantization import quantization_report
    from kubeyolo.steps.detection import evaluate_predictor, kept_result

    watch = Stopwatch()
    conditions = conditions_of(STEP, bundle, dataset, config)
    known = finished_under(output, STEP, conditions)
    if known is not None:
        return QuantizedModel(bundle=known.record.outputs["bundle"], record=known.reference)
    opened, images = open_bundle(bundle), open_dataset(dataset)
    opened.path(ONNX)
    with temporary_folder("quantize") as folder:
        path = folder / ONNX_INT8
        facts = _quantize(opened, images, path, config)
        manifest = opened.manifest
        predictor = Predictor(manifest, OnnxRuntime(path, manifest), "int8", config.evaluate.per_batch_size)
        int8_result = evaluate_predictor(predictor, images, config).result
        float_result = _float_result(opened, images, config)
        shown = _facts_for_report(facts, config.quantize)
        report = write_report(output, quantization_report(float_result, int8_result, shown))
        check_quantization(facts, config.quantize)
        drop = check_accuracy(float_result, int8_result, config.quantize.max_drop)
        kept = {**manifest.metrics, "int8": kept_result(int8_result, images.manifest.digest, config)}
        published = derive_once(opened, join_uri(output, "bundle"), {ONNX_INT8: path}, metrics=kept)
    metrics: dict[str, Any] = {
        "int8": int8_result.numbers,
        "float": float_result.numbers,
        "drop": round(drop, 4),
        "quantized_convs": round(facts.quantized_share, 4),
        "size_ratio": round(facts.size_ratio, 4),
        "int8_bytes": facts.int8_bytes,
    }
    record = write_record(output, STEP, watch.seconds, {"bundle": published}, metrics, report, conditions)
    return QuantizedModel(bundle=published, record=record)


def _quantize(bundle: Bundle, dataset: Dataset, path: Path, config: Config) -> QuantizationFacts:
    """Write the int8 network, calibrated on images of the training split."""
    from kubeyolo.quantization.calibration import CalibrationImages
    from kubeyolo.quantization.int8 import quantize_onnx

    settings = config.quantize
    split = dataset.split(CALIBRATION_SPLIT)
    images = CalibrationImages(split, bundle.manifest, settings.calibration_images, config.train.seed)
    return quantize_onnx(bundle.path(ONNX), path, images, settings.calibration)


def _float_result(bundle: Bundle, dataset: Dataset, config: Config) -> EvaluationResult:
    """Return the numbers of the float ONNX network: those of its export, or measured anew with other settings."""
    from kubeyolo.steps.detection import evaluate_bundle, recalled_result, settings_digest

    digest = settings_digest(dataset.manifest.digest, config)
    known = recalled_result(bundle.manifest.metrics, "onnx", digest)
    return known or evaluate_bundle(bundle, dataset, config, "onnx").result


def _facts_for_report(facts: QuantizationFacts, settings: QuantizeConfig) -> dict[str, object]:
    return {
        "convs": facts.convs,
        "quantized_convs": facts.quantized_convs,
        "float_bytes": facts.float_bytes,
        "int8_bytes": facts.int8_bytes,
        "max_drop": settings.max_drop,
        "min_quantized_convs": settings.min_quantized_convs,
        "max_size_ratio": settings.max_size_ratio,
        "calibration": facts.calibration,
        "calibration_images": facts.calibration_images,
    }
