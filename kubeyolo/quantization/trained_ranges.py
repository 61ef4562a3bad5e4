"""The int8 ONNX file of a network that was trained with quantization: its trained ranges become scales.

QuantizeLinear/DequantizeLinear pairs stand where :mod:`kubeyolo.models.fake_quantization` rounds, so the file computes
what the training has evaluated. A value that only moves (pooling, enlarging, slicing) keeps its scale: a pair with this
scale changes nothing, and lets runtimes keep the value in int8.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from safetensors.numpy import load_file

from kubeyolo.errors import InputError, WorkError
from kubeyolo.export.metadata import LEAST_ONNXRUNTIME_INT8
from kubeyolo.export.mindspore_export import FILE_MODE
from kubeyolo.export.onnx_graph import check_graph, drop_unused_initializers
from kubeyolo.models.ranges import AFTER, BEFORE, INPUT, RANGE, SUM, Ranges
from kubeyolo.quantization.int8 import QuantizationFacts
from kubeyolo.quantization.qdq import count_quantized_convolutions, head_convolutions, read_float_model
from kubeyolo.storage.integrity import appearing

TRAINED = "trained ranges"
"""How the ranges were chosen, in the facts of the quantization and in the metadata of the file."""

_WEIGHT_LEVELS, _ACTIVATION_LEVELS = 127, 255
_SMALLEST_SCALE = np.float32(1e-8)
_MOST_BIAS = 2**30
_IMAGE_RANGE = (0.0, 1.0)
_FOLDED = ".conv.folded.weight"
_MOVING = ("MaxPool", "Reshape", "Slice", "Concat", "Transpose")
"""Operators whose results are values of their inputs."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Grid:
    """The values that uint8 represents: ``(q − zero) · scale`` for q in 0..255."""

    scale: np.float32
    zero: int

    @classmethod
    def of(cls, value_range: tuple[float, float]) -> Grid:
        """Return the grid of a range, computed in float32 as in the training."""
        low, high = (np.float32(value) for value in value_range)
        scale = np.maximum((high - low) / np.float32(_ACTIVATION_LEVELS), _SMALLEST_SCALE)
        return cls(np.float32(scale), int(-np.rint(low / scale)))


def quantize_trained(float_path: Path, out_path: Path, ranges: Ranges, weights: Path, eps: float) -> QuantizationFacts:
    """Write the int8 file of a network that was trained with quantization.

    Args:
        float_path: A float file of the same network, written by :func:`kubeyolo.export.onnx.export_onnx`; its weights
            may differ.
        out_path: The file to write.
        ranges: The trained ranges.
        weights: Safetensors file of the trained weights.
        eps: Added to the variance by the batch normalizations.

    Raises:
        InputError: The file was not exported by kubeyolo, or weights or ranges belong to a different network.
        WorkError: A convolution would not be quantized.
    """
    model = read_float_model(float_path)
    heads = {node.output[0] for node in head_convolutions(model.graph, float_path)}
    set_weights(model.graph, load_file(weights), eps, float_path)
    grids = _grids(model.graph, ranges, heads, float_path)
    insert_pairs(model.graph, grids)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    added = {"quantization": f"int8 QDQ, {TRAINED}", "least_onnxruntime": LEAST_ONNXRUNTIME_INT8}
    helper.set_model_props(model, {**properties, **added})
    check_graph(model, str(out_path))
    convs, quantized_convs = count_quantized_convolutions(model.graph)
    with appearing(out_path) as part:
        onnx.save(model, str(part))
        part.chmod(FILE_MODE)
    return QuantizationFacts(
        convs=convs,
        quantized_convs=quantized_convs,
        float_bytes=float_path.stat().st_size,
        int8_bytes=out_path.stat().st_size,
        calibration_images=0,
        calibration=TRAINED,
    )


def set_weights(graph: onnx.GraphProto, weights: Mapping[str, Array], eps: float, path: Path) -> None:
    """Replace the weights of the convolutions of an exported network; batch normalization is folded into them.

    Args:
        graph: The graph, whose weights are named after parameters.
        weights: The weights by the names of their parameters.
        eps: Added to the variance by the batch normalizations.
        path: The file of the graph, for errors.

    Raises:
        InputError: A convolution has no weights of its name, or their shape differs.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for conv in (node for node in graph.node if node.op_type == "Conv"):
        try:
            arrays = _folded(conv, weights, eps)
        except KeyError as error:
            raise _other_network(
                path, f"a convolution reads {conv.input[1]!r}, for which there is no {error}"
            ) from None
        for name, array in zip(conv.input[1:], arrays, strict=True):
            if tuple(tensors[name].dims) != array.shape:
                raise _other_network(path, f"{name!r} has the shape {tuple(tensors[name].dims)}, not {array.shape}")
            tensors[name].CopyFrom(numpy_helper.from_array(array.astype(np.float32), name))


def _folded(conv: onnx.NodeProto, weights: Mapping[str, Array], eps: float) -> tuple[Array, Array]:
    """Return weights and bias of a convolution, in float64 if a batch normalization is folded into them."""
    block = _block(conv)
    if block is None:
        return weights[conv.input[1]], weights[conv.input[2]]
    names = ("conv.weight", "bn.gamma", "bn.beta", "bn.moving_mean", "bn.moving_variance")
    weight, gamma, beta, mean, variance = (weights[f"{block}.{name}"].astype(np.float64) for name in names)
    scale = gamma / np.sqrt(variance + eps)
    return weight * scale[:, None, None, None], beta - mean * scale


def _block(conv: onnx.NodeProto) -> str | None:
    """Return the name of the block of a convolution; None for an output of the head."""
    name = conv.input[1]
    return name.removesuffix(_FOLDED) if name.endswith(_FOLDED) else None


def _other_network(path: Path, reason: str) -> InputError:
    return InputError(f"{path}: does not belong to the trained weights ({reason}); export their network again")


def _grids(graph: onnx.GraphProto, ranges: Ranges, heads: Iterable[str], path: Path) -> dict[str, Grid]:
    """Return the grid of each value that is rounded, by its name in the graph.

    Raises:
        InputError: A range has no value in the graph, or a value has no range.
        WorkError: The input of a convolution is not rounded.
    """
    readers = _Readers(graph)
    grids = {graph.input[0].name: Grid.of(_IMAGE_RANGE)}
    unused = set(ranges)

    def add(value: str, name: str) -> None:
        if (key := f"{name}.{RANGE}") in ranges:
            grids[value] = Grid.of(ranges[key])
            unused.discard(key)

    for conv in (node for node in graph.node if node.op_type == "Conv" and node.output[0] not in heads):
        block = _block(conv)
        if block is None:
            raise _other_network(path, f"the convolution of {conv.input[1]!r} has no batch normalization")
        before, after, sigmoid = readers.activation(conv.output[0])
        add(conv.input[0], f"{block}.{INPUT}")
        add(before, f"{block}.{BEFORE}")
        add(after, f"{block}.{AFTER}")
        if after not in grids:
            raise _other_network(path, f"there is no range of {block}.{AFTER}")
        if sigmoid:
            grids[sigmoid] = Grid.of(_IMAGE_RANGE)
        for total in readers.of(after, "Add"):
            add(total.output[0], f"{block.rpartition('.')[0]}.{SUM}")
    if unused:
        raise _other_network(path, f"no value has the range {min(unused)}")
    _move(graph, grids)
    for conv in (node for node in graph.node if node.op_type == "Conv"):
        if conv.input[0] not in grids:
            raise WorkError(f"{path}: the input of {conv.name} has no trained range; report this as a bug")
    return grids


class _Readers:
    """The nodes that read each value of a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._nodes: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._nodes.setdefault(name, []).append(node)

    def of(self, value: str, kind: str) -> list[onnx.NodeProto]:
        """Return the nodes of a kind that read a value."""
        return [node for node in self._nodes.get(value, ()) if node.op_type == kind]

    def activation(self, value: str) -> tuple[str, str, str]:
        """Return the names of the values before and after an activation function, and of its sigmoid.

        The last name is empty if there is no sigmoid. SiLU is a product with a sigmoid; a leaky ReLU is written as the
        larger of a value and its tenth.
        """
        for kind in ("Relu", "LeakyRelu", "Max"):
            if nodes := self.of(value, kind):
                return value, str(nodes[0].output[0]), ""
        sigmoid, product = self.of(value, "Sigmoid"), self.of(value, "Mul")
        if sigmoid and product:
            return value, str(product[0].output[0]), str(sigmoid[0].output[0])
        return value, value, ""


def _move(graph: onnx.GraphProto, grids: dict[str, Grid]) -> None:
    """Add the values that operators only move; nodes are in topological order."""
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type not in _MOVING or node.output[0] in grids:
            continue
        values = [name for name in node.input if name not in constants] if node.op_type == "Concat" else node.input[:1]
        found = {grids.get(name) for name in values}
        if len(found) == 1 and (grid := found.pop()) is not None:
            grids[node.output[0]] = grid


def insert_pairs(graph: onnx.GraphProto, grids: Mapping[str, Grid]) -> None:
    """Quantize and dequantize values behind the nodes that make them, and the weights of all convolutions.

    Biases become int32 with the scale of the products: input times weights.

    Args:
        graph: The graph, which is changed.
        grids: The grid of each value that is quantized, by name.
    """
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    outputs = {output.name for output in graph.output}
    nodes: list[onnx.NodeProto] = []

    def constant(name: str, array: Array) -> str:
        graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def pair(value: str) -> None:
        scale = constant(f"{value}_scale", np.asarray(grids[value].scale, np.float32))
        zero = constant(f"{value}_zero_point", np.asarray(grids[value].zero, np.uint8))
        quantized, back = f"{value}_quantized", _rounded(value)
        nodes.append(helper.make_node("QuantizeLinear", [value, scale, zero], [quantized], f"{value}_QuantizeLinear"))
        nodes.append(
            helper.make_node("DequantizeLinear", [quantized, scale, zero], [back], f"{value}_DequantizeLinear")
        )

    def stored(name: str, levels: Array, scale: Array, zero: Array) -> str:
        facts = [
            constant(f"{name}_quantized", levels),
            constant(f"{name}_scale", scale),
            constant(f"{name}_zero_point", zero),
        ]
        nodes.append(helper.make_node("DequantizeLinear", facts, [_rounded(name)], f"{name}_DequantizeLinear", axis=0))
        return _rounded(name)

    for value in graph.input:
        if value.name in grids:
            pair(value.name)
    for node in graph.node:
        if node.op_type == "Conv":
            weight, bias = arrays[node.input[1]], arrays[node.input[2]]
            of_input = grids[node.input[0]].scale
            largest = np.abs(weight).max(axis=(1, 2, 3)) / np.float32(_WEIGHT_LEVELS)
            # A channel whose weights are almost zero needs a scale with which int32 represents its bias.
            least = np.abs(bias) / of_input / np.float32(_MOST_BIAS)
            scale = np.maximum(np.maximum(largest, least), _SMALLEST_SCALE).astype(np.float32)
            levels = np.rint(weight / scale[:, None, None, None]).astype(np.int8)
            products = (of_input * scale).astype(np.float32)
            whole = np.rint(bias.astype(np.float64) / products).astype(np.int32)
            node.input[1] = stored(node.input[1], levels, scale, np.zeros(len(scale), np.int8))
            node.input[2] = stored(node.input[2], whole, products, np.zeros(len(scale), np.int32))
        node.input[:] = [_rounded(name) if name in grids else name for name in node.input]
        nodes.append(node)
        for value in node.output:
            if value in grids and value not in outputs:
                pair(value)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    drop_unused_initializers(graph)
    del graph.value_info[:]


def _rounded(value: str) -> str:
    return f"{value}_dequantized"
