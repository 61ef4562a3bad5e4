from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import onnx
import pytest

import kubeyolo
from kubeyolo.bundle import Preprocessing
from kubeyolo.errors import InputError, WorkError
from kubeyolo.evaluation.decode import decode
from kubeyolo.evaluation.runtimes import OnnxRuntime
from kubeyolo.export.metadata import read_metadata
from kubeyolo.export.onnx import _verify_symbolic_batch, export_onnx
from kubeyolo.export.parity import compare_levels
from kubeyolo.quantization.int8 import quantize_onnx
from tests.export.tiny_detector import CLASSES, SIZE, images, manifest
from tests.golden import case_image, case_parameters, case_weights, model_cases, read_arrays, read_json


@pytest.fixture(scope="module")
def model(detector) -> onnx.ModelProto:
    return onnx.load(str(detector.onnx))


def test_inputs_outputs_and_opset(model):
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "images": ["N", 3, 96, 128],
        "raw_8": ["N", 3, 12, 16, 8],
        "raw_16": ["N", 3, 6, 8, 8],
        "raw_32": ["N", 3, 3, 4, 8],
        "predictions": ["N", 756, 8],
    }
    assert model.opset_import[0].version == 17
    onnx.checker.check_model(model, full_check=True)


@pytest.fixture(scope="module")
def opset_11(detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("opset") / "model.onnx"
    export_onnx(detector.manifest, detector.build, path, 11)
    return path


def test_an_older_opset_computes_the_same(detector, model, opset_11: Path) -> None:
    old = onnx.load(str(opset_11))
    assert (old.opset_import[0].version, old.ir_version) == (11, 6)
    onnx.checker.check_model(old, full_check=True)
    new, old = OnnxRuntime(detector.onnx, detector.manifest), OnnxRuntime(opset_11, detector.manifest)
    batch = images(2)
    for one, other in zip(
        [*new.raw(batch), new.predictions(batch)], [*old.raw(batch), old.predictions(batch)], strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_the_int8_file_of_an_old_opset_has_the_opset_that_it_needs(detector, opset_11: Path, tmp_path: Path) -> None:
    quantize_onnx(opset_11, tmp_path / "int8.onnx", [image[None] for image in images(2)])
    quantized = onnx.load(str(tmp_path / "int8.onnx"))
    assert quantized.opset_import[0].version == 13
    runtime = OnnxRuntime(tmp_path / "int8.onnx", detector.manifest)
    assert runtime.predictions(images(2)).shape == (2, 756, 8)


def test_metadata_tells_what_is_needed_to_use_the_file(model, opset_11: Path):
    found = {one.key: one.value for one in model.metadata_props}
    metadata = read_metadata(found, "model.onnx")
    assert metadata.properties == found
    assert (metadata.model, metadata.classes, metadata.category_ids) == ("yolov5n-r7", CLASSES, (3, 5, 9))
    assert (metadata.image_size, metadata.strides, metadata.anchors[0][0]) == (SIZE, (8, 16, 32), (10, 13))
    assert (metadata.layout, metadata.preprocessing) == ("NCHW, float32, 0 to 1", Preprocessing())
    assert (metadata.kubeyolo, metadata.least_onnxruntime) == (kubeyolo.__version__, "1.12")
    assert metadata.nms is None and metadata.quantization == ""
    assert json.loads(found["preprocessing"]) == {
        "resize": "letterbox",
        "padding": "left = floor(total / 2), top = floor(total / 2)",
        "ratio": "x: resized / original width, y: resized / original height",
        "fill": 114,
        "channels": "RGB",
        "divisor": 255.0,
        "levels": None,
    }
    assert json.loads(found["classes"]) == list(CLASSES) and json.loads(found["image_size"]) == list(SIZE)
    old = {one.key: one.value for one in onnx.load(str(opset_11)).metadata_props}
    assert read_metadata(old, "model.onnx").least_onnxruntime == "1.0"


def test_metadata_of_earlier_versions_are_read_and_those_of_other_programs_refused(model):
    found = {one.key: one.value for one in model.metadata_props}
    added = ("kubeyolo", "least_onnxruntime", "layout")
    earlier = {name: text for name, text in found.items() if name not in added}
    assert read_metadata({**earlier, "quantization": "int8 QDQ, minmax"}, "m.onnx").quantization == "int8 QDQ, minmax"
    for other in ({}, {**found, "strides": "8, 16"}, {**found, "image_size": "640"}):
        with pytest.raises(InputError, match=r"^m\.onnx: its metadata .* export the model again"):
            read_metadata(other, "m.onnx")


def test_batch_norm_is_folded_and_names_are_readable(model):
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Conv") == 60
    assert "BatchNormalization" not in kinds and "Constant" not in kinds
    assert "backbone.stem.conv.folded.weight" in {tensor.name for tensor in model.graph.initializer}
    assert not any(name.isdigit() for node in model.graph.node for name in node.output)


def test_file_is_readable_by_all(detector):
    assert stat.S_IMODE(detector.onnx.stat().st_mode) == 0o644
    assert stat.S_IMODE(detector.mindir.stat().st_mode) == 0o644


def test_raw_outputs_are_those_of_the_network(detector):
    batch = images(2)
    levels = compare_levels(detector, OnnxRuntime(detector.onnx, detector.manifest), batch, (8, 16, 32))
    assert all(level.relative <= 1e-5 for level in levels)
    assert [level.stride for level in levels] == [8, 16, 32]
    assert all(level.max_value > 1 for level in levels)


def test_any_batch_size_gives_the_same_and_outputs_depend_on_the_image(detector):
    runtime = OnnxRuntime(detector.onnx, detector.manifest)
    assert runtime.batch_size is None
    batch = images(3)
    together = runtime.raw(batch)
    for number in range(3):
        for whole, alone in zip(together, runtime.raw(batch[number : number + 1]), strict=True):
            np.testing.assert_allclose(whole[number], alone[0], atol=1e-4)
    assert np.abs(together[0][0] - together[0][1]).mean() > 0.1


def test_predictions_are_the_decoded_raw_outputs(detector):
    runtime = OnnxRuntime(detector.onnx, detector.manifest)
    batch = images(2)
    expected = decode(
        runtime.raw(batch), detector.manifest.anchors, detector.manifest.strides, "yolov5", (2.0, 2.0, 2.0)
    )
    np.testing.assert_allclose(runtime.predictions(batch), expected, rtol=1e-5, atol=1e-4)


def test_network_that_mixes_images_is_refused(tmp_path):
    helper = onnx.helper
    values = {
        name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 3, *SIZE])
        for name in ("images", "raw_8", "predictions")
    }
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["images", "mean"], ["raw_8"]),
        helper.make_node("Identity", ["raw_8"], ["predictions"]),
    ]
    graph = helper.make_graph(nodes, "mixing", [values["images"]], [values["raw_8"], values["predictions"]])
    path = tmp_path / "mixing.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    with pytest.raises(WorkError, match="mixing.onnx: image 0 of a batch of 3 differs by .* mixes images"):
        _verify_symbolic_batch(path, manifest(strides=(8,), anchors=manifest().anchors[:1]))


@pytest.mark.parametrize("case", case_parameters([case for case in model_cases() if case == "yolov5_v7_n"]))
def test_golden_outputs_from_onnx(case, tmp_path):
    from kubeyolo.models.registry import build_model
    from kubeyolo.runtime import configure_mindspore
    from kubeyolo.weights.fit import load_arrays

    height, width = read_json(case, "meta.json")["input_shape"][2:]
    described = manifest(classes=tuple(str(number) for number in range(80)), image_size=(height, width))
    configure_mindspore()

    def build():
        network = build_model("yolov5n-r7", 80)
        load_arrays(network, case_weights(case))
        return network

    export_onnx(described, build, tmp_path / "golden.onnx")
    runtime = OnnxRuntime(tmp_path / "golden.onnx", described)
    expected = read_arrays(case, "outputs.npz")
    for level, raw in enumerate(runtime.raw(case_image(case))):
        np.testing.assert_allclose(raw, expected[f"raw_{level}"], rtol=1e-3, atol=1e-3)
    predictions = runtime.predictions(case_image(case))
    np.testing.assert_allclose(predictions[..., :4], expected["decoded"][..., :4], rtol=1e-3, atol=0.05)
    np.testing.assert_allclose(predictions[..., 4:], expected["decoded"][..., 4:], atol=1e-3)
