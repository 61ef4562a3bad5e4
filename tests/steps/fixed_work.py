"""The steps with work that takes no time: training, export and quantization write fixed networks and count."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.bundle import MINDIR, ONNX, WEIGHTS, BundleManifest
from kubeyolo.data import shards
from kubeyolo.evaluation.sharing import WHOLE, Share
from kubeyolo.publishing import publish_bundle
from kubeyolo.quantization.int8 import QuantizationFacts
from kubeyolo.steps import detection, export
from kubeyolo.steps.same_training import identity_of
from kubeyolo.storage.place import Place
from kubeyolo.training.history import FILE_NAME, HistoryRow, TrainingHistory
from kubeyolo.training.result import RESULT_NAME, TrainingResult
from kubeyolo.training.spec import TrainingSpec
from kubeyolo.work import Work
from tests.steps.fixed_detector import fixed_manifest


def fix_work(monkeypatch: pytest.MonkeyPatch, folder: Path, network: Path) -> list[str]:
    """Let the steps write a network in place of their work; the bytes of MINDIR are others each time.

    Args:
        monkeypatch: Undoes it.
        folder: For files.
        network: The ONNX file that every export and quantization gives; trained networks give its numbers.

    Returns:
        A list that gets the name of each piece of work.
    """
    worked: list[str] = []

    def launch(work: Work) -> None:
        spec = TrainingSpec.model_validate_json(work.document)
        worked.append(spec.task)
        kind = "pretrain" if spec.task == "backbone" else "train"
        rows = [HistoryRow(kind=kind, step=3, epoch=0, loss=0.5, images_per_second=7.0)]
        Place.of((Place.of(spec.output) / FILE_NAME).uri).write(TrainingHistory(rows).to_bytes())
        weights = written(folder / WEIGHTS, spec.config.train.model_dump_json().encode())
        uri = publish_bundle(Place.of((Place.of(spec.output) / "bundle").uri), manifest(spec), {WEIGHTS: weights}).uri
        identity = identity_of(spec, Place.of(spec.output))
        result = TrainingResult(identity=identity, code_digest="", steps=3, bundle=uri, seconds=1.5, resumed_at=[])
        Place.of((Place.of(spec.output) / RESULT_NAME).uri).write(result.model_dump_json().encode())

    def exported(bundle: Any, described: Any, config: Any, temporary: Path) -> dict[str, Path]:
        worked.append("export")
        mindir = written(temporary / MINDIR, b"exported %03d times" % worked.count("export"))
        return {ONNX: written(temporary / ONNX, network.read_bytes()), MINDIR: mindir}

    class Calibrated:
        def write(self, path: Path, runtime: str, float_layers: Any) -> QuantizationFacts:
            worked.append("quantize")
            written(path, network.read_bytes())
            return QuantizationFacts(10, 10, 400, 100, 4, "minmax")

    predictors, evaluate_bundle, write_dataset = (
        export._exported_predictors,
        detection.evaluate_bundle,
        shards.write_dataset,
    )

    def evaluated(bundle: Any, dataset: Any, config: Any, runtime: str, share: Share = WHOLE) -> Any:
        worked.append("evaluate")
        if runtime != "mindspore":
            return evaluate_bundle(bundle, dataset, config, runtime, share)
        predictor = predictors(bundle.manifest, {ONNX: network}, config)["onnx"]
        return detection.evaluate_predictor(predictor, dataset, config, share)

    def stored(*arguments: Any, **options: Any) -> Any:
        worked.append("validate")
        return write_dataset(*arguments, **options)

    def only_onnx(described: BundleManifest, files: dict[str, Path], config: Any) -> Any:
        return predictors(described, {ONNX: files[ONNX]}, config)

    def trained(bundle: Any, described: BundleManifest, config: Any) -> Any:
        return predictors(described, {ONNX: network}, config)["onnx"]

    replaced: dict[str, Callable[..., Any]] = {
        "kubeyolo.launch.local.launch_work": launch,
        "kubeyolo.data.shards.write_dataset": stored,
        "kubeyolo.steps.detection.evaluate_bundle": evaluated,
        "kubeyolo.steps.export._export": exported,
        "kubeyolo.steps.export._exported_predictors": only_onnx,
        "kubeyolo.steps.export._trained_predictor": trained,
        "kubeyolo.steps.quantize._calibrated": lambda *arguments: Calibrated(),
        "kubeyolo.steps.quantize._layer_costs": lambda *arguments: [],
    }
    for name, function in replaced.items():
        monkeypatch.setattr(name, function)
    return worked


def manifest(spec: TrainingSpec) -> BundleManifest:
    """Return what a training would say of its bundle."""
    return fixed_manifest(kind=spec.task, config=spec.config.model_dump(mode="json"))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def file_of(uri: str) -> Path:
    """Return the path of a file of this machine by its URI."""
    folder, _, name = uri.rpartition("/")
    path = Place.of(folder).store.local_path(name)
    assert path is not None
    return path


def checks_of(report: str) -> list[tuple[str, str, str]]:
    """Return the checks that a page shows: name, verdict, message."""
    cells = (r'<th scope="row">([^<]*)</th>', r'<td><span class="badge \w+">(\w+)</span></td>', "<td[^>]*>([^<]*)</td>")
    rows = re.findall(f"<tr>{''.join(cells)}</tr>", Place.of(report).read().decode())
    return [(unescape(name), verdict, unescape(message)) for name, verdict, message in rows]
