from __future__ import annotations

import stat
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from kubeyolo.errors import InputError
from kubeyolo.evaluation.runtimes import OnnxRuntime
from kubeyolo.quantization.int8 import quantize_onnx
from kubeyolo.quantization.qdq import count_quantized_convolutions, head_convolutions
from tests.export.tiny_detector import images, manifest


def calibration(count: int = 3):
    return [image[None] for image in images(count, seed=1)]


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float((first * second).sum() / np.sqrt((first * first).sum() * (second * second).sum()))


@pytest.fixture(scope="module")
def quantized(detector, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "model-int8.onnx"
    return path, quantize_onnx(detector.onnx, path, calibration())


def test_every_convolution_is_int8_and_the_file_is_small(quantized):
    path, facts = quantized
    assert (facts.convs, facts.quantized_convs, facts.quantized_share) == (60, 60, 1.0)
    assert facts.int8_bytes == path.stat().st_size
    assert facts.size_ratio <= 0.33
    assert (facts.calibration_images, facts.calibration) == (3, "minmax")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_outputs_are_close_to_those_of_the_float_model(detector, quantized):
    batch = images(3, seed=2)
    before, after = OnnxRuntime(detector.onnx, manifest()), OnnxRuntime(quantized[0], manifest())
    for expected, got in zip(before.raw(batch), after.raw(batch), strict=True):
        assert cosine(got, expected) > 0.99
        assert np.abs(got - expected).mean() < 0.15 * np.abs(expected).mean()
    assert cosine(after.predictions(batch), before.predictions(batch)) > 0.99


def test_weights_are_symmetric_per_channel_and_activations_uint8(quantized):
    graph = onnx.load(str(quantized[0])).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    for conv in (node for node in graph.node if node.op_type == "Conv"):
        weight, scale, zero = (arrays[name] for name in makers[conv.input[1]].input)
        assert weight.dtype == np.int8 and zero.dtype == np.int8 and not zero.any()
        assert scale.shape == (len(weight),)
        assert arrays[makers[conv.input[0]].input[2]].dtype == np.uint8


def test_head_outputs_and_decoding_stay_float(quantized):
    graph = onnx.load(str(quantized[0])).graph
    heads = head_convolutions(graph, quantized[0])
    assert len(heads) == 3
    outputs = {head.output[0] for head in heads}
    assert not [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] in outputs]
    decoding = [node for node in graph.node if node.name.startswith("decode/")]
    assert Counter(node.op_type for node in decoding)["Sigmoid"] == 3
    read = {name for node in decoding for name in node.input}
    assert not [node for node in graph.node if node.op_type == "DequantizeLinear" and read.intersection(node.output)]


def test_metadata_is_kept(quantized):
    found = {one.key: one.value for one in onnx.load(str(quantized[0])).metadata_props}
    assert found["model"] == "yolov5n-r7" and found["quantization"] == "int8 QDQ, minmax"
    assert "onnx.quant.pre_process" not in found


def test_the_same_images_give_the_same_file(detector, quantized, tmp_path):
    quantize_onnx(detector.onnx, tmp_path / "again.onnx", calibration())
    assert (tmp_path / "again.onnx").read_bytes() == quantized[0].read_bytes()


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_histogram_calibration(detector, tmp_path, method, capsys):
    facts = quantize_onnx(detector.onnx, tmp_path / "q.onnx", calibration(2), calibration=method)
    assert facts.quantized_share == 1.0 and facts.calibration == method
    assert capsys.readouterr().out == ""
    batch = images(1, seed=2)
    expected, got = (OnnxRuntime(path, manifest()).raw(batch)[0] for path in (detector.onnx, tmp_path / "q.onnx"))
    assert cosine(got, expected) > 0.97


def test_any_batch_size(quantized):
    runtime = OnnxRuntime(quantized[0], manifest())
    batch = images(3, seed=4)
    assert [len(level) for level in runtime.raw(batch)] == [3, 3, 3]
    np.testing.assert_allclose(runtime.raw(batch)[0][2], runtime.raw(batch[2:])[0][0], atol=1e-4)


def test_bad_input_is_refused(detector, tmp_path):
    with pytest.raises(InputError, match="no calibration images"):
        quantize_onnx(detector.onnx, tmp_path / "q.onnx", [])
    with pytest.raises(InputError, match="unknown calibration 'max'; known: minmax, entropy, percentile"):
        quantize_onnx(detector.onnx, tmp_path / "q.onnx", calibration(1), calibration="max")
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(InputError, match="text.onnx: "):
        quantize_onnx(tmp_path / "text.onnx", tmp_path / "q.onnx", calibration(1))
    assert not (tmp_path / "q.onnx").exists()


def test_a_convolution_with_float_weights_is_not_counted():
    node = onnx.helper.make_node
    nodes = [
        node("DequantizeLinear", ["x8", "s", "z"], ["x"]),
        node("DequantizeLinear", ["w8", "s", "z"], ["w"]),
        node("Conv", ["x", "w"], ["a"]),
        node("Conv", ["x", "float_w"], ["b"]),
        node("Conv", ["a", "w"], ["c"]),
    ]
    assert count_quantized_convolutions(onnx.helper.make_graph(nodes, "g", [], [])) == (3, 1)
