"""Writes a detector as int8 ONNX, with QuantizeLinear/DequantizeLinear pairs, from the ranges of its activations.

Weights are symmetric int8 per output channel, activations asymmetric uint8 per tensor. The outputs of the last
convolutions and the decoding after them stay float: one scale cannot represent both pixels and scores.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, version_converter
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from kubeyolo.arrays import Float32Array
from kubeyolo.config.schema import QuantizedFor
from kubeyolo.errors import InputError
from kubeyolo.evaluation.network_checks import check_onnx_file
from kubeyolo.evaluation.runtimes import INPUT_NAME, PREDICTIONS_NAME
from kubeyolo.export.metadata import LEAST_ONNXRUNTIME_INT8
from kubeyolo.export.onnx import IR_VERSIONS
from kubeyolo.export.onnx_graph import drop_unused_initializers

Range = tuple[float, float]
"""Smallest and largest value of a tensor."""

QUANTIZED_OPERATORS: Mapping[QuantizedFor, tuple[str, ...]] = {
    # SiLU is x·σ(x): if its Mul is quantized too, values stay int8 from one convolution to the next.
    "onnxruntime": ("Conv", "MaxPool", "Concat", "Mul", "Add"),
    # OpenVINO fuses the activation function into an int8 convolution only if no pair is between them.
    "openvino": ("Conv",),
}
"""Operators whose inputs get pairs, by the runtime that the file is written for."""

LEAST_OPSET = 13
"""Opset from which a scale for each channel is possible."""


def qdq_model(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    path: Path,
    runtime: QuantizedFor = "onnxruntime",
    float_layers: Collection[str] = (),
    operators: Collection[str] = (),
    weight_scales: Mapping[str, Float32Array] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Return a float model of :func:`read_float_model` in int8.

    Args:
        model: The float model; it is not changed.
        ranges: Range of each activation by its name in the model. A scale s with zero point z of asymmetric uint8 is
            the range (−z·s, (255 − z)·s).
        path: File of the float model, for messages.
        runtime: Runtime that the file is written for.
        float_layers: Names of convolutions that stay float, with their inputs and outputs.
        operators: Operators to quantize, by default those of the runtime.
        weight_scales: Scales of each output channel of weights, by the name of the weights in the model; by default the
            largest absolute weight of the channel divided by 127.
        metadata: Metadata to add to that of the float model.

    Raises:
        InputError: The file was not exported by kubeyolo.
        ValueError: onnxruntime cannot quantize the model. It also raises RuntimeError and TypeError.
    """
    properties = {entry.key: entry.value for entry in model.metadata_props}
    heads = [node.output[0] for node in head_convolutions(model.graph, path)]
    inferred = onnx.shape_inference.infer_shapes(model)
    options: dict[str, Any] = {"TensorQuantOverrides": _overrides(weight_scales or {})}
    if runtime == "openvino":
        options["OpTypesToExcludeOutputQuantization"] = ["Conv"]
    quantizer = QDQQuantizer(
        inferred,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=_tensors_data(ranges),
        nodes_to_quantize=[],
        nodes_to_exclude=[*behind(model.graph, heads), *float_layers],
        op_types_to_quantize=list(operators or QUANTIZED_OPERATORS[runtime]),
        extra_options=options,
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    _keep_layers_float(quantized.graph, float_layers)
    keep_float(quantized.graph, heads)
    # Metadata of onnxruntime's own tools is left out.
    helper.set_model_props(quantized, {**properties, "least_onnxruntime": LEAST_ONNXRUNTIME_INT8, **(metadata or {})})
    return quantized


def read_float_model(path: Path) -> onnx.ModelProto:
    """Read a file written by :func:`kubeyolo.export.onnx.export_onnx`, with an opset that int8 can have.

    Raises:
        InputError: The file cannot be read, or was not exported by kubeyolo, or has a fixed batch size above 1.
    """
    check_onnx_file(path)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's errors have no public base class
        raise InputError(f"{path}: not a readable ONNX file ({error}); export the model again") from error
    if [value.name for value in model.graph.input] != [INPUT_NAME]:
        raise InputError(f"{path}: its input is not {INPUT_NAME!r}; export the model again")
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    if batch > 1:
        raise InputError(
            f"{path}: exported for batches of {batch} images; export it with a dynamic batch size, or for one image"
        )
    head_convolutions(model.graph, path)
    if model.opset_import[0].version < LEAST_OPSET:
        model = version_converter.convert_version(model, LEAST_OPSET)
        model.ir_version = IR_VERSIONS[LEAST_OPSET]
    return model


def count_quantized_convolutions(graph: onnx.GraphProto) -> tuple[int, int]:
    """Return the number of Conv nodes, and the number of those that read data and weights from DequantizeLinear."""
    makers = {output: node.op_type for node in graph.node for output in node.output}
    convs = [node for node in graph.node if node.op_type == "Conv"]
    quantized = [node for node in convs if all(makers.get(name) == "DequantizeLinear" for name in node.input[:2])]
    return len(convs), len(quantized)


def convolutions(graph: onnx.GraphProto) -> dict[str, str]:
    """Return the name of the weights of each convolution, by the name of its node, in the order of the graph."""
    return {node.name: node.input[1] for node in graph.node if node.op_type == "Conv"}


def head_convolutions(graph: onnx.GraphProto, path: Path) -> list[onnx.NodeProto]:
    """Return the convolutions whose reshaped outputs are the ``raw_*`` outputs.

    Raises:
        InputError: An output does not come from such a convolution.
    """
    makers = {output: node for node in graph.node for output in node.output}
    heads = []
    for output in graph.output:
        if output.name == PREDICTIONS_NAME:
            continue
        node = makers.get(output.name)
        while node is not None and node.op_type in ("Reshape", "Transpose"):
            node = makers.get(node.input[0])
        if node is None or node.op_type != "Conv":
            raise InputError(
                f"{path}: output {output.name!r} does not come from a detector's head; export the model again"
            )
        heads.append(node)
    return heads


def keep_float(graph: onnx.GraphProto, values: Sequence[str]) -> None:
    """Remove the QuantizeLinear/DequantizeLinear pair that reads each of these values."""
    for value in values:
        pair = _pair_of(graph, value)
        back = {node.output[0]: value for node in pair}
        for node in pair:
            graph.node.remove(node)
        for node in graph.node:
            node.input[:] = [back.get(name, name) for name in node.input]
    drop_unused_initializers(graph)
    del graph.value_info[:]


def behind(graph: onnx.GraphProto, values: Sequence[str]) -> list[str]:
    """Return the names of all nodes that depend on these values; nodes are in topological order."""
    reached = set(values)
    names = []
    for node in graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
            names.append(node.name)
    return names


def _keep_layers_float(graph: onnx.GraphProto, layers: Collection[str]) -> None:
    """Make these convolutions read float values, and all operators but int8 convolutions read their float results."""
    makers = {output: node for node in graph.node for output in node.output}
    for conv in (node for node in graph.node if node.op_type == "Conv" and node.name in layers):
        dequantize = makers.get(conv.input[0])
        if dequantize is not None and dequantize.op_type == "DequantizeLinear":
            conv.input[0] = makers[dequantize.input[0]].input[0]
        # Int8 convolutions that read its output directly keep the pair.
        pair = _pair_of(graph, conv.output[0])
        for node in (node for node in graph.node if pair and node.op_type != "Conv"):
            node.input[:] = [conv.output[0] if name == pair[-1].output[0] else name for name in node.input]
    _drop_unread_pairs(graph)


def _drop_unread_pairs(graph: onnx.GraphProto) -> None:
    for kind in ("DequantizeLinear", "QuantizeLinear"):
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        for node in [node for node in graph.node if node.op_type == kind and node.output[0] not in read]:
            graph.node.remove(node)


def _pair_of(graph: onnx.GraphProto, value: str) -> list[onnx.NodeProto]:
    quantize = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == value]
    written = {node.output[0] for node in quantize}
    return quantize + [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in written]


def _tensors_data(ranges: Mapping[str, Range]) -> TensorsData:
    data = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    return TensorsData(CalibrationMethod.MinMax, data)


def _overrides(weight_scales: Mapping[str, Float32Array]) -> dict[str, list[dict[str, Any]]]:
    """Return the scales of weights as onnxruntime takes them: a mapping for each output channel."""
    kind = {"quant_type": QuantType.QInt8, "axis": 0}
    return {
        name: [{**kind, "scale": np.float32(scale), "zero_point": np.int8(0)} for scale in scales]
        for name, scales in weight_scales.items()
    }
