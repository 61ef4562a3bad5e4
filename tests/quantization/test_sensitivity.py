from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from kubeyolo.evaluation.runtimes import OnnxRuntime
from kubeyolo.quantization.int8 import calibrated
from kubeyolo.quantization.qdq import convolutions, qdq_model
from kubeyolo.quantization.sensitivity import layer_costs
from tests.export.tiny_detector import images, manifest


def batches(count: int):
    return [image[None] for image in images(count, seed=1)]


@pytest.fixture(scope="module")
def network(detector):
    return calibrated(detector.onnx, batches(2))


def test_every_convolution_has_a_cost_and_the_most_expensive_is_first(network):
    costs = layer_costs(network, batches(2))
    assert {cost.name: cost.weights for cost in costs} == convolutions(network.model.graph)
    decibels = [cost.decibels for cost in costs]
    assert decibels == sorted(decibels) and 10 < decibels[0] < decibels[-1] < 90


def test_a_cost_is_the_noise_of_a_file_with_only_this_layer_in_int8(network, detector, tmp_path):
    cost = layer_costs(network, batches(1))[0]
    path = tmp_path / "one.onnx"
    onnx.save(qdq_model(network.model, network.ranges, detector.onnx, only=[cost.name]), path)
    expected, found = (OnnxRuntime(file, manifest()).raw(batches(1)[0]) for file in (detector.onnx, path))
    ratios = [np.square(b - a).sum() / np.square(a).sum() for a, b in zip(expected, found, strict=True)]
    assert cost.decibels == pytest.approx(-10 * np.log10(np.mean(ratios)), abs=0.3)


def test_no_further_layer_is_measured_when_the_time_is_over(network):
    assert layer_costs(network, batches(1), seconds=0) == []


def test_float_layers_have_no_pairs_and_less_noise(network, detector, tmp_path):
    worst = [cost.name for cost in layer_costs(network, batches(1))[:2]]
    facts = network.write(tmp_path / "mixed.onnx", float_layers=worst)
    assert (facts.convs, facts.quantized_convs) == (60, 58) and set(facts.float_layers) == set(worst)
    graph = onnx.load(tmp_path / "mixed.onnx").graph
    makers = {output: node.op_type for node in graph.node for output in node.output}
    readers = [node.op_type for node in graph.node for name in node.input if name in worst]
    for conv in (node for node in graph.node if node.name in worst):
        assert makers.get(conv.input[0]) != "DequantizeLinear" and conv.input[1] not in makers
        assert "QuantizeLinear" not in [node.op_type for node in graph.node if conv.output[0] in node.input], readers
    network.write(tmp_path / "int8.onnx")
    batch = images(2, seed=5)
    true, mixed, all_int8 = (
        OnnxRuntime(path, manifest()).raw(batch)[0]
        for path in (detector.onnx, tmp_path / "mixed.onnx", tmp_path / "int8.onnx")
    )
    assert np.square(mixed - true).sum() < np.square(all_int8 - true).sum()


def test_the_form_for_openvino_has_pairs_around_convolutions_alone(network, tmp_path):
    network.write(tmp_path / "q.onnx", "openvino")
    model = onnx.load(tmp_path / "q.onnx")
    read = {name: node for node in model.graph.node for name in node.input}
    activations = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert activations and {read[read[node.output[0]].output[0]].op_type for node in activations} == {"Conv"}
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["quantized_for"] == "openvino" and properties["least_onnxruntime"] == "1.15"


def test_scales_of_weights_and_ranges_can_be_given(network, detector):
    name, weights = next(iter(convolutions(network.model.graph).items()))
    shapes = {tensor.name: tensor.dims[0] for tensor in network.model.graph.initializer}
    scales = np.linspace(0.01, 0.02, shapes[weights], dtype=np.float32)
    ranges = {**network.ranges, "images": (-0.5, 2.05)}
    graph = qdq_model(network.model, ranges, detector.onnx, weight_scales={weights: scales}).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    conv = next(node for node in graph.node if node.name == name)
    np.testing.assert_allclose(arrays[makers[conv.input[1]].input[1]], scales)
    _, scale, zero = makers[conv.input[0]].input
    assert arrays[scale] == pytest.approx(0.01) and arrays[zero] == 50
