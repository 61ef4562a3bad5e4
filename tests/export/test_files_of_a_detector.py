"""The networks that are made from a trained detector lose nothing, or little, of its AP."""

from __future__ import annotations

from pathlib import Path

from kubeyolo.steps.outcome import read_record
from kubeyolo.storage.place import Place
from tests.steps.called import evaluate, export_model, quantize
from tests.training.pretraining import Trainings


def test_a_trained_detector_loses_nothing_in_onnx_and_little_in_int8(trainings: Trainings, tmp_path: Path) -> None:
    bundle, config, dataset = str(trainings.detector("pretrained") / "bundle"), trainings.config, trainings.dataset
    float_ap = evaluate(bundle, dataset, str(tmp_path / "evaluate"), config).result.numbers["AP"]
    exported = export_model(bundle, dataset, str(tmp_path / "export"), config)
    quantized = quantize(exported.bundle, dataset, str(tmp_path / "quantize"), config)
    assert float_ap is not None and float_ap > 0.05
    assert abs(read_record(Place.of(exported.record)).metrics["onnx"]["AP"] - float_ap) <= 0.001
    assert read_record(Place.of(quantized.record)).metrics["drop"] <= 1.0
