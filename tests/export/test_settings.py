"""Settings with which no file can be written, and settings without effect, are refused before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubeyolo.bundle import BundleManifest, open_bundle
from kubeyolo.cli.app import main
from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError
from kubeyolo.models.named_facts import model_facts
from kubeyolo.publishing import publish_bundle
from kubeyolo.steps.export import check_export, exported_manifest
from kubeyolo.storage.place import Place
from tests.steps.fixed_detector import fixed_bundle


def config(model: str = "yolov5n-r7", evaluate: Any = None, **export: Any) -> Config:
    return Config.model_validate({"model": model, "export": export, "evaluate": evaluate or {}})


def test_suppression_needs_onnx_and_iou() -> None:
    check_export(config(nms=True))
    check_export(config(evaluate={"nms": "diou"}))
    with pytest.raises(InputError, match=r"export.nms = true with export.formats = \['mindir'\]: .* add onnx"):
        check_export(config(nms=True, formats=["mindir"]))
    with pytest.raises(InputError, match="export.nms = true with evaluate.nms = diou: .* set evaluate.nms=greedy"):
        check_export(config(nms=True, evaluate={"nms": "diou"}))


def test_a_size_fits_the_strides_and_the_files_that_stay(tmp_path: Path) -> None:
    exported = open_bundle(Place.of(fixed_bundle(tmp_path / "small", {"onnx": 0, "int8": 0})))
    assert exported_manifest(exported, config()).image_size == (64, 64)
    assert exported_manifest(exported, config(image_size=64, formats=["mindir"])).image_size == (64, 64)
    with pytest.raises(InputError, match=r"model-int8.onnx in this bundle takes images of 64 x 64 .* quantize again"):
        exported_manifest(exported, config(image_size="96x128"))
    facts = model_facts("yolov4-p7")
    manifest = BundleManifest(
        model="yolov4-p7", classes=("a",), image_size=(256, 256), strides=facts.strides, anchors=facts.anchors
    )
    large = publish_bundle(Place.of(tmp_path / "large"), manifest, {})
    assert exported_manifest(large, config("yolov4-p7", image_size="128x384")).image_size == (128, 384)
    with pytest.raises(InputError, match=r"export.image_size = 160x320: yolov4-p7 needs multiples of 128"):
        exported_manifest(large, config("yolov4-p7", image_size="160x320"))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (
            "--set evaluate.image_size=128",
            "evaluate.image_size = 128 has no effect on export: the ONNX file",
        ),
        ("--set train.image_size=128", "train.image_size has no effect on export; leave it out"),
        ("--formats onnx --batch_size 4", "export.batch_size = 4 has no effect on export: ONNX accepts any"),
        ("--formats mindir --opset 13", "export.opset = 13 has no effect on export: only the ONNX file has it"),
        ("--formats mindir --nms", "export.nms = true with export.formats = ['mindir']"),
        ("--image_size 100", "export.image_size"),
    ],
)
def test_a_key_without_effect_is_refused_before_data_are_read(
    pairs: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = fixed_bundle(tmp_path / "bundle", {"onnx": 0})
    with pytest.raises(SystemExit) as ended:
        main(["export", bundle, str(tmp_path / "no-data"), "--store", str(tmp_path / "store"), *pairs.split()])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
