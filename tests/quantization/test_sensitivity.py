from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from kubeyolo.evaluation.runtimes import OnnxRuntime
from kubeyolo.quantization.int8 import calibrated
from kubeyolo.quantization.qdq import convolutions, qdq_model
from kubeyolo.quantization.sensitivity import layer_costs
from tests.quantization.lamp_detector import batches, lamp_detector
from tests.steps.fixed_detector import fixed_manifest

LAYERS = {"stem": "stem.weight", **{f"head_{stride}": f"raw_{stride}.weight" for stride in (8, 16, 32)}}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("lamp") / "model.onnx"
    onnx.save(lamp_detector(), path)
    return calibrated(path, batches(2))


def raw(path, batch):
    return OnnxRuntime(path, fixed_manifest()).raw(batch)


def noise(path, network, batch):
    """Return the mean over the levels of the power of the error relative to that of the outputs."""
    pairs = zip(raw(network.path, batch), raw(path, batch), strict=True)
    return np.mean([np.square(found - true).sum() / np.square(true).sum() for true, found in pairs])


def test_every_convolution_has_a_cost_and_the_most_expensive_is_first(network):
    costs = layer_costs(network, batches(2))
    assert {cost.name: cost.weights for cost in costs} == convolutions(network.model.graph) == LAYERS
    decibels = [cost.decibels for cost in costs]
    assert decibels == sorted(decibels) and decibels[2] - decibels[1] > 6
    assert {cost.name for cost in costs[:2]} == {"stem", "head_8"}


@pytest.mark.parametrize("name", LAYERS)
def test_a_cost_is_the_noise_of_a_file_with_only_this_layer_in_int8(network, name, tmp_path):
    cost = next(cost for cost in layer_costs(network, batches(1)) if cost.name == name)
    path = tmp_path / "one.onnx"
    network.write(path, float_layers=[other for other in LAYERS if other != name])
    assert cost.decibels == pytest.approx(-10 * np.log10(noise(path, network, batches(1)[0])), abs=1)


def test_no_further_layer_is_measured_when_the_time_is_over(network):
    assert layer_costs(network, batches(1), seconds=0) == []


def test_float_layers_have_no_pairs_and_less_noise(network, tmp_path):
    paths = [tmp_path / name for name in ("int8.onnx", "mixed.onnx")]
    network.write(paths[0])
    facts = network.write(paths[1], float_layers=["stem", "head_8"])
    assert (facts.convs, facts.quantized_convs, facts.float_layers) == (4, 2, ("stem", "head_8"))
    graph = onnx.load(paths[1]).graph
    makers = {output: node.op_type for node in graph.node for output in node.output}
    for conv in (node for node in graph.node if node.name in facts.float_layers):
        assert makers.get(conv.input[0]) != "DequantizeLinear" and conv.input[1] not in makers
        assert "QuantizeLinear" not in [node.op_type for node in graph.node if conv.output[0] in node.input]
    before, after = (noise(path, network, batches(1)[0]) for path in paths)
    assert after < before / 10


def test_the_form_for_openvino_has_no_pairs_behind_convolutions(network, tmp_path):
    network.write(tmp_path / "q.onnx", "openvino")
    model = onnx.load(tmp_path / "q.onnx")
    activations = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert activations == {"images", "features"}
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["quantized_for"] == "openvino" and properties["least_onnxruntime"] == "1.15"


def test_scales_of_weights_and_ranges_can_be_given(network):
    scales = np.linspace(0.01, 0.02, 64, dtype=np.float32)
    ranges = {**network.ranges, "images": (-0.5, 2.05)}
    graph = qdq_model(network.model, ranges, network.path, weight_scales={"stem.weight": scales}).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    conv = next(node for node in graph.node if node.name == "stem")
    np.testing.assert_allclose(arrays[makers[conv.input[1]].input[1]], scales)
    _, scale, zero = makers[conv.input[0]].input
    assert arrays[scale] == pytest.approx(0.01) and arrays[zero] == 50
