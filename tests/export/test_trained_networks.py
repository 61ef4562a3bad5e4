"""The files of a trained network, at another size and with suppression inside, find what it finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeyolo.bundle import AIPP, ASCEND, ONNX, ONNX_NMS, WEIGHTS, open_bundle
from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError
from kubeyolo.evaluation.runtimes import OnnxRuntime
from kubeyolo.export.onnx_nms import NmsFile
from kubeyolo.report.model_card import model_card
from kubeyolo.steps.export import exported_manifest
from kubeyolo.steps.outcome import read_record
from kubeyolo.storage.place import Place
from tests.steps.called import export_model
from tests.training.pretraining import Trainings


def test_a_trained_detector_is_the_same_at_another_size_and_with_suppression_inside(
    trainings: Trainings, tmp_path: Path
) -> None:
    sections = {"formats": ["onnx"], "nms": True, "image_size": "128x192", "opset": 13}
    config = Config.model_validate({**trainings.config.model_dump(), "export": sections})
    trained = str(trainings.detector("pretrained") / "bundle")
    stored = export_model(trained, trainings.dataset, str(tmp_path / "export"), config)
    bundle = open_bundle(Place.of(stored.bundle))
    assert bundle.manifest.files.keys() == {WEIGHTS, ONNX, ONNX_NMS, ASCEND, AIPP}
    assert bundle.manifest.image_size == (128, 192)
    assert OnnxRuntime(bundle.path(ONNX), bundle.manifest).image_size == (128, 192)
    suppression = NmsFile(bundle.path(ONNX_NMS)).metadata.nms
    assert suppression is not None and (suppression.max_det, suppression.multi_label) == (300, True)
    assert "src_image_size_w: 192" in bundle.path(AIPP).read_text() and "1,3,128,192" in bundle.path(ASCEND).read_text()

    card = model_card(bundle.manifest.model_dump(mode="json"), {})
    assert "`model-nms.onnx` outputs `detections` and `counts` instead" in card and "192 × 128 pixels" in card

    metrics = read_record(Place.of(stored.record)).metrics
    names = {check["name"].partition(":")[0] for check in metrics["checks"]}
    assert names >= {"onnx, stride 8", "onnx", "onnx with suppression"}
    assert all(check["passed"] for check in metrics["checks"])
    assert metrics["largest_difference"] <= 1e-4
    for network in ("onnx", "onnx with suppression"):
        assert metrics["detections"][network]["detections"] > 8, network
        assert metrics["detections"][network]["distance"] <= 0.5
    assert metrics["onnx"]["AP"] > 0.05 and abs(metrics["onnx"]["AP"] - metrics["trained_ap"]) <= 0.001

    other = Config.model_validate({"export": {"formats": ["mindir"], "image_size": 160}})
    with pytest.raises(InputError, match=r"model-nms\.onnx, model\.onnx in this bundle take images of 128 x 192"):
        exported_manifest(bundle, other)
