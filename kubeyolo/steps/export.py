"""export_model: the trained network in formats that other runtimes read, compared with it before they are stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubeyolo.bundle import AIR, MINDIR, ONNX, WEIGHTS, Bundle
from kubeyolo.config.schema import Config
from kubeyolo.steps.conditions import conditions_of, finished_under
from kubeyolo.steps.derived import derive_once
from kubeyolo.steps.record import Stopwatch, write_record, write_report
from kubeyolo.storage.uri import join_uri
from kubeyolo.storage.workspace import temporary_folder

if TYPE_CHECKING:
    from kubeyolo.data.dataset import Dataset
    from kubeyolo.evaluation.predictor import Predictor

STEP = "export_model"


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """References of the bundle with the exported files and of the record."""

    bundle: str
    record: str


def export_model(bundle: str, dataset: str, output: str, config: Config) -> ExportedModel:
    """Export the trained network, compare it on real images, and evaluate the ONNX network.

    Args:
        bundle: URI or reference of the bundle with the trained weights.
        dataset: URI or reference of the stored data set, for real images.
        output: URI of the folder that receives the new bundle, report.html and metrics.json.
        config: Its sections ``export`` and ``evaluate`` count.

    Raises:
        InputError: AIR is wanted off Ascend (before any work), or the bundle or the data set cannot be used.
        WorkError: A network cannot be exported, or differs from the trained one; then nothing is stored.
    """
    from kubeyolo.bundle import open_bundle
    from kubeyolo.data.dataset import open_dataset
    from kubeyolo.export.air import check_air_possible
    from kubeyolo.report.export import export_report
    from kubeyolo.steps.detection import evaluate_predictor, kept_result

    watch = Stopwatch()
    if "air" in config.export.formats:
        check_air_possible(config.train.device_target)
    conditions = conditions_of(STEP, bundle, dataset, config)
    known = finished_under(output, STEP, conditions)
    if known is not None:
        return ExportedModel(bundle=known.record.outputs["bundle"], record=known.reference)
    opened, images = open_bundle(bundle), open_dataset(dataset)
    with temporary_folder("export") as folder:
        files = _export(opened, config, folder)
        exported = _exported_predictors(opened, files, config)
        parity = _parity(opened, images, exported, config)
        result = None
        kept = dict(opened.manifest.metrics)
        if "onnx" in exported:
            result = evaluate_predictor(exported["onnx"], images, config).result
            kept["onnx"] = kept_result(result, images.manifest.digest, config)
        sizes = {name: path.stat().st_size for name, path in files.items()}
        published = derive_once(opened, join_uri(output, "bundle"), files, metrics=kept)
    differences = {name: max(level.values()) for name, level in parity.items()}
    facts = {
        "model": opened.manifest.model,
        "files": sizes,
        "parity": parity,
        "rtol": config.export.parity_rtol,
        "images": config.export.parity_images,
        **({"AP in ONNX": result.numbers["AP"]} if result else {}),
    }
    report = write_report(output, export_report(facts))
    metrics: dict[str, Any] = {
        "largest_difference": max(differences.values(), default=0.0),
        "differences": differences,
        "bytes": sizes,
    }
    if result is not None:
        metrics["onnx"] = result.numbers
    record = write_record(output, STEP, watch.seconds, {"bundle": published}, metrics, report, conditions)
    return ExportedModel(bundle=published, record=record)


def _network_builder(bundle: Bundle, config: Config) -> Callable[[], Any]:
    from kubeyolo.evaluation.network import load_network

    return partial(load_network, bundle.manifest, bundle.path(WEIGHTS), config.train.device_target, bundle.uri)


def _export(bundle: Bundle, config: Config, folder: Path) -> dict[str, Path]:
    """Write the wanted formats and return the files by their name in a bundle."""
    from kubeyolo.export.air import export_air
    from kubeyolo.export.mindir import export_mindir
    from kubeyolo.export.onnx import export_onnx

    build, batch = _network_builder(bundle, config), config.export.batch_size
    files: dict[str, Path] = {}
    for wanted in config.export.formats:
        if wanted == "mindir":
            files[MINDIR] = folder / MINDIR
            export_mindir(bundle.manifest, build, files[MINDIR], batch)
        elif wanted == "onnx":
            files[ONNX] = folder / ONNX
            export_onnx(bundle.manifest, build, files[ONNX], batch)
        else:
            files[AIR] = folder / AIR
            export_air(bundle.manifest, build, files[AIR], batch, config.train.device_target)
    return files


def _exported_predictors(bundle: Bundle, files: dict[str, Path], config: Config) -> dict[str, Predictor]:
    """Open the exported files that can be run here; AIR is run by Ascend's own tools alone."""
    from kubeyolo.evaluation.predictor import Predictor
    from kubeyolo.evaluation.runtimes import MindirRuntime, OnnxRuntime

    manifest, batch = bundle.manifest, config.evaluate.per_batch_size
    predictors: dict[str, Predictor] = {}
    if MINDIR in files:
        runtime = MindirRuntime(files[MINDIR], manifest, config.train.device_target)
        predictors["mindir"] = Predictor(manifest, runtime, "mindir", batch)
    if ONNX in files:
        predictors["onnx"] = Predictor(manifest, OnnxRuntime(files[ONNX], manifest), "onnx", batch)
    return predictors


def _parity(
    bundle: Bundle, dataset: Dataset, exported: dict[str, Predictor], config: Config
) -> dict[str, dict[str, float]]:
    """Return the relative difference to the trained network for each format and level, once all are small enough."""
    from kubeyolo.evaluation.predictor import load_predictor
    from kubeyolo.export.parity import check_parity
    from kubeyolo.steps.detection import real_images

    if not exported:
        return {}
    settings = config.export
    trained = load_predictor(bundle, "mindspore", settings.batch_size, device_target=config.train.device_target)
    images = real_images(trained, dataset.split(config.evaluate.split), settings.parity_images)
    parity = {}
    for name, predictor in exported.items():
        levels = check_parity(trained, predictor, images, bundle.manifest.strides, settings.parity_rtol, name)
        parity[name] = {f"stride {level.stride}": level.relative for level in levels}
    return parity
