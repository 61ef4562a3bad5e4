"""What each layer costs in int8: the noise of the network's outputs when only this layer is quantized.

One graph holds every convolution twice, as float and as int8, and an input chooses the one that runs as int8. So the
network is loaded once, however many layers it has.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kubeyolo.arrays import Float32Array
from kubeyolo.evaluation.runtimes import INPUT_NAME, PREDICTIONS_NAME, onnx_session
from kubeyolo.progress import Progress
from kubeyolo.quantization.int8 import CalibratedNetwork
from kubeyolo.quantization.qdq import convolutions, qdq_model

MOST_IMAGES = 4
MOST_SECONDS = 120.0
"""Seconds after which no further layer is measured."""

_SWITCH = "int8_layer"
_NO_LAYER = -1
_LARGEST = 99.9
"""Decibels of a layer without noise."""


@dataclass(frozen=True)
class LayerCost:
    """What a convolution costs in int8.

    Attributes:
        name: Name of the convolution in the ONNX file.
        weights: Name of its weights, which contains the name of the module.
        decibels: Signal-to-noise ratio of the network's raw outputs when only this convolution is int8: 10 lg of the
            power of the outputs divided by the power of their error, with the mean of this ratio over the levels. The
            lower, the more it costs.
    """

    name: str
    weights: str
    decibels: float


def layer_costs(
    network: CalibratedNetwork, images: Sequence[Float32Array], seconds: float = MOST_SECONDS
) -> list[LayerCost]:
    """Measure what each convolution costs in int8, the most expensive first.

    Args:
        network: The calibrated network.
        images: Calibration images, each (1, 3, H, W) float32 in 0..1; the first images are used, fewer for a slow
            network.
        seconds: Seconds after which no further convolution is measured; the result then lacks the last ones.
    """
    layers = convolutions(network.model.graph)
    session = onnx_session(_switched(network).SerializeToString())
    outputs = [each.name for each in network.model.graph.output if each.name != PREDICTIONS_NAME]

    def raw(image: Float32Array, layer: int) -> list[Float32Array]:
        found: list[Float32Array] = session.run(outputs, {INPUT_NAME: image, _SWITCH: np.array(layer, np.int64)})
        return found

    begin = time.monotonic()
    first = raw(images[0], _NO_LAYER)
    one_run = time.monotonic() - begin
    count = max(1, min(MOST_IMAGES, len(images), int(seconds / max(one_run * len(layers), 1e-9))))
    chosen = [images[number] for number in range(count)]
    expected = [first, *(raw(image, _NO_LAYER) for image in chosen[1:])]
    costs = []
    with Progress("measuring layers", len(layers)) as progress:
        for number, (name, weights) in enumerate(layers.items()):
            if time.monotonic() - begin > seconds:
                break
            found = [raw(image, number) for image in chosen]
            costs.append(LayerCost(name, weights, _decibels(expected, found)))
            progress.advance()
    return sorted(costs, key=lambda cost: cost.decibels)


def _decibels(expected: Sequence[Sequence[Float32Array]], found: Sequence[Sequence[Float32Array]]) -> float:
    """Return the signal-to-noise ratio of outputs by image and level."""
    ratios = []
    for levels in zip(zip(*expected, strict=True), zip(*found, strict=True), strict=True):
        true, noisy = (np.concatenate([each.ravel() for each in level]).astype(np.float64) for level in levels)
        ratios.append(float(np.square(noisy - true).sum()) / max(float(np.square(true).sum()), 1e-12))
    noise = sum(ratios) / len(ratios)
    return _LARGEST if noise <= 0 else round(min(_LARGEST, -10 * math.log10(noise)), 2)


def _switched(network: CalibratedNetwork) -> onnx.ModelProto:
    """Return the float model with an input that names the number of the convolution that runs as int8; -1 for none."""
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    quantized = qdq_model(network.model, network.ranges, network.path, operators=("Conv",)).graph
    makers = {output: node for node in quantized.node for output in node.output}
    readers = {node.input[0]: node for node in quantized.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    int8 = {node.name: node for node in quantized.node if node.op_type == "Conv"}
    graph = model.graph
    known = {tensor.name for tensor in graph.initializer}
    graph.initializer.extend(tensor for tensor in quantized.initializer if tensor.name not in known)
    graph.input.append(helper.make_tensor_value_info(_SWITCH, TensorProto.INT64, []))
    nodes: list[onnx.NodeProto] = []
    number = 0
    for node in graph.node:
        if node.op_type != "Conv":
            nodes.append(node)
            continue
        chosen = f"{node.name}/number"
        graph.initializer.append(numpy_helper.from_array(np.array(number, np.int64), chosen))
        nodes.append(helper.make_node("Equal", [_SWITCH, chosen], [f"{node.name}/is_int8"]))
        branches = {
            "then_branch": _subgraph(
                _int8_nodes(int8[node.name], node.output[0], makers, readers), node.name + "/int8"
            ),
            "else_branch": _subgraph([node], node.name + "/float"),
        }
        nodes.append(helper.make_node("If", [f"{node.name}/is_int8"], [node.output[0]], node.name, **branches))
        number += 1
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    return model


def _int8_nodes(
    conv: onnx.NodeProto, output: str, makers: dict[str, onnx.NodeProto], readers: dict[str, onnx.NodeProto]
) -> list[onnx.NodeProto]:
    """Return a quantized convolution with the pairs of its inputs and of its output, in the order of the graph."""
    nodes: list[onnx.NodeProto] = []
    for name in conv.input:
        dequantize = makers.get(name)
        if dequantize is None:
            continue
        quantize = makers.get(dequantize.input[0])
        nodes += [dequantize] if quantize is None else [quantize, dequantize]
    nodes.append(conv)
    if output in readers:
        quantize = readers[output]
        nodes += [quantize, readers[quantize.output[0]]]
    return nodes


def _subgraph(nodes: Sequence[onnx.NodeProto], name: str) -> onnx.GraphProto:
    """Return nodes as a branch; their outputs get names of their own, since branches share names with the graph."""
    made = {output: f"{name}/{output}" for node in nodes for output in node.output}
    copies = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [made.get(each, each) for each in node.input]
        copy.output[:] = [made[each] for each in node.output]
        copies.append(copy)
    last = helper.make_empty_tensor_value_info(copies[-1].output[0])
    return helper.make_graph(copies, name, [], [last])
