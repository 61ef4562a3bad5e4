"""export_model: exports the trained network to other formats, and compares each file with it before storing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kubeyolo.bundle import AIPP, AIR, ASCEND, MINDIR, ONNX, WEIGHTS, Bundle
from kubeyolo.config.schema import Config, ExportConfig
from kubeyolo.data.dataset import Dataset
from kubeyolo.evaluation.limits import Verdict, check_parity
from kubeyolo.evaluation.network import MindirRuntime, load_network
from kubeyolo.evaluation.predictor import Predictor, load_predictor
from kubeyolo.evaluation.runtimes import OnnxRuntime
from kubeyolo.export.ascend_files import aipp_config, ascend_text
from kubeyolo.export.mindspore_export import AIR_NOTE, check_air_possible, export_cell
from kubeyolo.export.parity import compare_levels
from kubeyolo.publishing import derive_once
from kubeyolo.report.export import export_report
from kubeyolo.steps import detection
from kubeyolo.steps.outcome import StepOutcome, Stopwatch
from kubeyolo.storage.place import Place
from kubeyolo.storage.workspace import temporary_folder

STEP = "export_model"

_NAMES = {"onnx": ONNX, "mindir": MINDIR, "air": AIR}


def check_formats(config: Config) -> None:
    """Refuse formats that cannot be written here, before any work.

    Raises:
        InputError: AIR is among the formats, and the device is not Ascend.
    """
    if "air" in config.export.formats:
        check_air_possible(config.export.device_target)


def export_model(bundle: Bundle, dataset: Dataset, output: Place, config: Config) -> StepOutcome:
    """Export the trained network, compare the files with it on real images, and evaluate the ONNX network.

    Args:
        bundle: The bundle with the trained weights.
        dataset: The stored data set, for real images.
        output: The folder that receives the new bundle.
        config: Its sections ``export`` and ``evaluate`` are used.

    Raises:
        InputError: The bundle or the data set cannot be used.
        WorkError: A network cannot be exported, or differs from the trained network; nothing is stored then.
    """
    watch, exported_config = Stopwatch(), detection.at_exported_size(config)
    detection.print_exported_size(config)
    with temporary_folder("export") as folder:
        files = _export(bundle, config, folder)
        exported = _exported_predictors(bundle, files, config)
        parity = _parity(bundle, dataset, exported, config)
        verdict = judge(parity, config.export)
        verdict.enforce()
        result = None
        kept = dict(bundle.manifest.metrics)
        if "onnx" in exported:
            result = detection.evaluate_predictor(exported["onnx"], dataset, exported_config).result
            kept["onnx"] = detection.kept_result(result, dataset.digest, exported_config)
        sizes = {name: path.stat().st_size for name, path in files.items()}
        added = files | _ascend_files(bundle, files, config, folder)
        published = derive_once(
            bundle, output / "bundle", added, step=STEP, inputs={"dataset": dataset.digest}, metrics=kept
        )
    differences = {name: max(level.values()) for name, level in parity.items()}
    not_measured = sorted(name for name in config.export.formats if name not in parity)
    facts = {
        "model": bundle.manifest.model,
        "files": sizes,
        "parity": parity,
        "rtol": config.export.parity_rtol,
        "images": config.export.parity_images,
        **({"not_measured": [_NAMES[name] for name in not_measured], "AIR": AIR_NOTE} if not_measured else {}),
        **({"AP in ONNX": result.numbers["AP"]} if result else {}),
    }
    metrics: dict[str, Any] = {
        **({"largest_difference": max(differences.values())} if differences else {}),
        "differences": differences,
        **({"not_measured": not_measured} if not_measured else {}),
        "bytes": sizes,
        "checks": verdict.rows,
        **({"onnx": result.numbers} if result else {}),
    }
    return StepOutcome(
        step=STEP,
        seconds=watch.seconds,
        outputs={"bundle": published},
        metrics=metrics,
        html=export_report(facts, verdict),
    )


def judge(parity: Mapping[str, Mapping[str, float]], settings: ExportConfig) -> Verdict:
    """Compare the relative differences of all levels, by format and level, with the largest allowed difference."""
    return Verdict(
        tuple(
            check_parity(name, level, difference, settings.parity_rtol, settings.parity_images)
            for name, levels in parity.items()
            for level, difference in levels.items()
        )
    )


def _export(bundle: Bundle, config: Config, folder: Path) -> dict[str, Path]:
    """Write the files of all formats in the configuration, and return them by their name in a bundle."""
    from kubeyolo.export.onnx import export_onnx

    manifest = bundle.manifest
    build = partial(load_network, manifest, bundle.path(WEIGHTS), config.export.device_target, bundle.uri)
    shape = (config.export.batch_size, 3, *manifest.image_size)
    files = {_NAMES[kind]: folder / _NAMES[kind] for kind in config.export.formats}
    if AIR in files:
        print(f"{STEP}: {AIR_NOTE}", flush=True)
    for name, path in files.items():
        if name == ONNX:
            export_onnx(manifest, build, path, config.export.opset)
        else:
            export_cell(build(), shape, path, "MINDIR" if name == MINDIR else "AIR")
    return files


def _ascend_files(bundle: Bundle, files: Mapping[str, Path], config: Config, folder: Path) -> dict[str, Path]:
    """Write the commands and the configuration for Ascend's tools; return them by their name in a bundle."""
    settings, texts = config.export, {}
    texts[ASCEND] = ascend_text(bundle.manifest, files, settings.opset, settings.batch_size)
    if ONNX in files:
        texts[AIPP] = aipp_config(bundle.manifest)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {name: folder / name for name in texts}


def _exported_predictors(bundle: Bundle, files: dict[str, Path], config: Config) -> dict[str, Predictor]:
    """Open the exported files that can be run here; only Ascend's own tools can run AIR."""
    manifest, batch = bundle.manifest, config.evaluate.per_batch_size
    predictors: dict[str, Predictor] = {}
    if MINDIR in files:
        runtime = MindirRuntime(files[MINDIR], config.export.device_target)
        predictors["mindir"] = Predictor(manifest, runtime, "mindir", batch)
    if ONNX in files:
        predictors["onnx"] = Predictor(manifest, OnnxRuntime(files[ONNX], manifest), "onnx", batch)
    return predictors


def _parity(
    bundle: Bundle, dataset: Dataset, exported: dict[str, Predictor], config: Config
) -> dict[str, dict[str, float]]:
    """Return the relative difference from the trained network for each format and level."""
    if not exported:
        return {}
    settings = config.export
    trained = load_predictor(bundle, "mindspore", settings.batch_size, device_target=config.export.device_target)
    images = detection.real_images(trained, dataset.split(config.evaluate.split), settings.parity_images)
    parity = {}
    for name, predictor in exported.items():
        levels = compare_levels(trained, predictor, images, bundle.manifest.strides, name)
        parity[name] = {f"stride {level.stride}": level.relative for level in levels}
    return parity
