"""Networks learn eight photographs by heart with their own loss, and their files find the same: `make accept`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kubeyolo.config.load import load_config
from kubeyolo.data.shards import write_dataset
from kubeyolo.launch.local import launch_work
from kubeyolo.steps.outcome import read_record
from kubeyolo.storage.place import Place
from kubeyolo.training.spec import TrainingSpec
from tests.accept.overfit import COMMON, MODELS, write_eight_images
from tests.steps.called import evaluate, export_model

ASKED = os.environ.get("MODEL", "").split()


@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("model", ASKED or MODELS)
def test_a_network_learns_eight_images_by_heart(model: str, shared: Path, tmp_path: Path) -> None:
    source = write_eight_images(shared / "data" / "coco_cc", tmp_path / "eight")
    dataset = write_dataset(source, Place.of(tmp_path / "store")).uri
    config = load_config(model, None, [f"{key}={value}" for key, value in (COMMON | MODELS[model]).items()])
    output = tmp_path / "training"
    launch_work(TrainingSpec(dataset=dataset, output=str(output), config=config).work())
    found = evaluate(str(output / "bundle"), dataset, str(tmp_path / "evaluate"), config).result.numbers
    assert found["AP50"] is not None and found["AP50"] >= 0.95, found

    config = config.model_copy(update={"export": config.export.model_copy(update={"nms": True})})
    exported = export_model(str(output / "bundle"), dataset, str(tmp_path / "export"), config)
    metrics = read_record(Place.of(exported.record)).metrics
    assert metrics["largest_difference"] <= 1e-4 and abs(metrics["onnx"]["AP"] - metrics["trained_ap"]) <= 0.001
    for network in ("onnx", "mindir", "onnx with suppression"):
        parity = metrics["detections"][network]
        print(f"{model}, {network}: {parity}")
        assert parity["detections"] >= 8 and parity["unmatched"] == 0 and parity["distance"] <= 0.5
