"""export_model: exports the trained network to other formats, and compares each file with it before storing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from kubeyolo.bundle import (
    AIPP,
    AIR,
    ASCEND,
    MINDIR,
    ONNX,
    ONNX_INT8,
    ONNX_NMS,
    WEIGHTS,
    Bundle,
    BundleManifest,
)
from kubeyolo.config.schema import Config, ExportConfig
from kubeyolo.data.dataset import Dataset
from kubeyolo.errors import InputError
from kubeyolo.evaluation.limits import LEAST_SCORE, Verdict, check_ap_parity, check_detections, check_parity
from kubeyolo.evaluation.network import MindirRuntime, load_network
from kubeyolo.evaluation.network_files import NETWORK_FILES
from kubeyolo.evaluation.nms import MAX_CANDIDATES
from kubeyolo.evaluation.predictor import Predictor, Thresholds, load_predictor
from kubeyolo.evaluation.runtimes import OnnxRuntime
from kubeyolo.export.ascend_files import aipp_config, ascend_text
from kubeyolo.export.mindspore_export import AIR_NOTE, check_air_possible, export_cell
from kubeyolo.export.parity import DetectionParity, compare_detections, compare_levels, suppressed
from kubeyolo.models.named_facts import check_export_size
from kubeyolo.publishing import derive_once
from kubeyolo.report.export import export_report
from kubeyolo.steps import detection
from kubeyolo.steps.outcome import StepOutcome, Stopwatch
from kubeyolo.steps.samples import chosen_images
from kubeyolo.storage.place import Place
from kubeyolo.storage.workspace import temporary_folder

STEP = "export_model"

_OF_ONE_SIZE = (*NETWORK_FILES, "best_thresholds", "benchmark")
"""Metrics of a bundle that are measured at one image size."""

_NAMES = {"onnx": ONNX, "mindir": MINDIR, "air": AIR}


def check_export(config: Config) -> None:
    """Refuse settings with which no file can be written here, before any work.

    Raises:
        InputError: AIR is among the formats, and the device is not Ascend; or suppression is requested without ONNX, or
            with an overlap that ONNX does not have.
    """
    settings = config.export
    if "air" in settings.formats:
        check_air_possible(settings.device_target)
    if settings.nms and "onnx" not in settings.formats:
        raise InputError(
            f"export.nms = true with export.formats = {list(settings.formats)}: only an ONNX file can suppress boxes; "
            "add onnx to the formats, or leave export.nms out"
        )
    if settings.nms and config.evaluate.nms != "greedy":
        raise InputError(
            f"export.nms = true with evaluate.nms = {config.evaluate.nms}: the operator NonMaxSuppression of ONNX "
            "measures overlap by IoU only; set evaluate.nms=greedy, or leave export.nms out"
        )


def exported_manifest(bundle: Bundle, config: Config) -> BundleManifest:
    """Return the manifest of a bundle with the image size of its exported files.

    Raises:
        InputError: The size is not a multiple of the largest stride, or the bundle has files of a different size that
            are not written again.
    """
    manifest, size = bundle.manifest, config.export.input_size
    if size is None or size == manifest.image_size:
        return manifest
    check_export_size(config)
    old = {MINDIR, ONNX, AIR, ONNX_NMS, ONNX_INT8} & {*manifest.files}
    if kept := sorted(old - _file_names(config)):
        height, width = manifest.image_size
        raise InputError(
            f"{bundle.uri}: {', '.join(kept)} in this bundle {'take' if len(kept) > 1 else 'takes'} images of "
            f"{height} x {width} (height x width), not of export.image_size = {config.export.image_size}; export the "
            "bundle of the training, then quantize again"
        )
    return manifest.model_copy(update={"image_size": size})


def _file_names(config: Config) -> set[str]:
    """Return the names of the network files that an export writes."""
    names = {_NAMES[kind] for kind in config.export.formats}
    return names | ({ONNX_NMS} if config.export.nms else set())


@dataclass(frozen=True)
class Parity:
    """How far the exported files are from the trained network, by the name of the file's format.

    Attributes:
        levels: Relative difference of each level.
        detections: How the detections match.
        images: Names of the images that were compared.
    """

    levels: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    detections: Mapping[str, DetectionParity] = field(default_factory=dict)
    images: Sequence[str] = ()


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
    manifest = exported_manifest(bundle, config)
    detection.print_exported_size(config)
    result = trained_ap = None
    with temporary_folder("export") as folder:
        files = _export(bundle, manifest, config, folder)
        exported = _exported_predictors(manifest, files, config)
        trained = _trained_predictor(bundle, manifest, config) if exported else None
        parity = _parity(trained, exported, files, dataset, config) if trained else Parity()
        verdict = judge(parity, config.export)
        verdict.enforce()
        kept = _kept_metrics(bundle.manifest, manifest)
        if "onnx" in exported:
            result = detection.evaluate_predictor(exported["onnx"], dataset, exported_config).result
            kept["onnx"] = detection.kept_result(result, dataset.digest, exported_config)
        if trained and result and config.export.parity_ap:
            trained_ap = detection.evaluate_predictor(trained, dataset, exported_config).result.numbers["AP"]
            verdict = Verdict((*verdict.checks, check_ap_parity("onnx", result.numbers["AP"], trained_ap)))
            verdict.enforce()
        sizes = {name: path.stat().st_size for name, path in files.items()}
        added = files | _ascend_files(manifest, files, config, folder)
        updates: dict[str, Any] = {"metrics": kept, "image_size": manifest.image_size}
        published = derive_once(
            bundle, output / "bundle", added, step=STEP, inputs={"dataset": dataset.digest}, **updates
        )
    differences = {name: max(level.values()) for name, level in parity.levels.items()}
    not_measured = sorted(name for name in config.export.formats if name not in parity.levels)
    facts = {
        "model": bundle.manifest.model,
        "files": sizes,
        "image size": "{} x {} (height x width)".format(*manifest.image_size),
        "parity": parity.levels,
        "rtol": config.export.parity_rtol,
        "images": config.export.parity_images,
        **({"not_measured": [_NAMES[name] for name in not_measured], "AIR": AIR_NOTE} if not_measured else {}),
        **({"AP in ONNX": result.numbers["AP"]} if result else {}),
        **({"AP of the trained network": trained_ap} if trained_ap is not None else {}),
    }
    metrics: dict[str, Any] = {
        **({"largest_difference": max(differences.values())} if differences else {}),
        "differences": differences,
        "detections": {name: asdict(each) for name, each in parity.detections.items()},
        **({"not_measured": not_measured} if not_measured else {}),
        "image_size": list(manifest.image_size),
        "bytes": sizes,
        "checks": verdict.rows,
        **({"onnx": result.numbers} if result else {}),
        **({"trained_ap": trained_ap} if trained_ap is not None else {}),
    }
    return StepOutcome(
        step=STEP,
        seconds=watch.seconds,
        outputs={"bundle": published},
        metrics=metrics,
        html=export_report(facts, verdict),
    )


def _kept_metrics(before: BundleManifest, after: BundleManifest) -> dict[str, Any]:
    """Return the metrics that remain true: those of networks and their speeds are measured at one image size."""
    is_same = before.image_size == after.image_size
    return {name: value for name, value in before.metrics.items() if is_same or name not in _OF_ONE_SIZE}


def judge(parity: Parity, settings: ExportConfig) -> Verdict:
    """Compare the levels and the detections of each file with those of the trained network."""
    levels = (
        check_parity(name, level, difference, settings.parity_rtol, settings.parity_images)
        for name, levels in parity.levels.items()
        for level, difference in levels.items()
    )
    detections = (
        check_detections(
            name,
            each.detections,
            each.unmatched,
            each.distance,
            "" if each.image is None else parity.images[each.image],
            settings.parity_images,
        )
        for name, each in parity.detections.items()
    )
    return Verdict((*levels, *detections))


def _export(bundle: Bundle, manifest: BundleManifest, config: Config, folder: Path) -> dict[str, Path]:
    """Write the files of all formats in the configuration, and return them by their name in a bundle."""
    from kubeyolo.export.onnx import export_onnx
    from kubeyolo.export.onnx_nms import export_nms

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
    if config.export.nms:
        files[ONNX_NMS] = folder / ONNX_NMS
        export_nms(files[ONNX], files[ONNX_NMS], manifest, _thresholds(config))
    return files


def _thresholds(config: Config) -> Thresholds:
    """Return the limits on the boxes of an image that the section evaluate has."""
    settings = config.evaluate
    limits = (settings.conf_threshold, settings.iou_threshold, settings.max_det, settings.multi_label, settings.nms)
    return Thresholds(*limits)


def _ascend_files(manifest: BundleManifest, files: Mapping[str, Path], config: Config, folder: Path) -> dict[str, Path]:
    """Write the commands and the configuration for Ascend's tools; return them by their name in a bundle."""
    settings, texts = config.export, {}
    texts[ASCEND] = ascend_text(manifest, files, settings.opset, settings.batch_size)
    if ONNX in files:
        texts[AIPP] = aipp_config(manifest)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {name: folder / name for name in texts}


def _exported_predictors(manifest: BundleManifest, files: Mapping[str, Path], config: Config) -> dict[str, Predictor]:
    """Open the exported files that can be run here; only Ascend's own tools can run AIR."""
    batch = config.evaluate.per_batch_size
    predictors: dict[str, Predictor] = {}
    if MINDIR in files:
        runtime = MindirRuntime(files[MINDIR], config.export.device_target)
        predictors["mindir"] = Predictor(manifest, runtime, "mindir", batch)
    if ONNX in files:
        predictors["onnx"] = Predictor(manifest, OnnxRuntime(files[ONNX], manifest), "onnx", batch)
    return predictors


def _trained_predictor(bundle: Bundle, manifest: BundleManifest, config: Config) -> Predictor:
    """Open the trained network, for images of the exported size."""
    batch, device = config.evaluate.per_batch_size, config.export.device_target
    return load_predictor(bundle, "mindspore", batch, manifest.image_size, device)


def _parity(
    trained: Predictor,
    exported: Mapping[str, Predictor],
    files: Mapping[str, Path],
    dataset: Dataset,
    config: Config,
) -> Parity:
    """Run the trained network and the files on the same real images, and compare levels and detections."""
    split, thresholds, size = dataset.split(config.evaluate.split), _thresholds(config), trained.image_size
    chosen = chosen_images(split, config.export.parity_images)
    images = detection.real_images(trained, split, chosen)
    # Without a limit on their number, the detections at the limit do not depend on rounding.
    unlimited = replace(thresholds, conf=max(thresholds.conf, LEAST_SCORE), max_det=MAX_CANDIDATES)
    predictions = list(trained.predictions(images))
    levels, detections = {}, {}
    for name, predictor in exported.items():
        compared = compare_levels(trained, predictor, images, trained.manifest.strides, name)
        levels[name] = {f"stride {level.stride}": level.relative for level in compared}
        rows = [suppressed(each, unlimited) for each in predictor.predictions(images)]
        detections[name] = compare_detections(predictions, rows, unlimited, size)
    if ONNX_NMS in files:
        from kubeyolo.export.onnx_nms import NmsFile

        rows = NmsFile(files[ONNX_NMS]).rows(images)
        detections["onnx with suppression"] = compare_detections(predictions, rows, thresholds, size)
    return Parity(levels, detections, [split.index.file_name[number] for number in chosen])
