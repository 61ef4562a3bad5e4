"""Changes to ONNX graphs: folding batch norms, renaming, symbolic batch, decode nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kubeyolo.errors import WorkError
from kubeyolo.evaluation.decode import Anchors, DecodeKind

BATCH = "N"
DECODE_PREFIX = "decode/"


def constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Turn Constant nodes into initializers of the same name."""
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        value = next(attribute.t for attribute in node.attribute if attribute.name == "value")
        tensor = graph.initializer.add()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
        graph.node.remove(node)


def fold_batch_norms(graph: onnx.GraphProto) -> None:
    """Fold each BatchNormalization that is the only consumer of a Conv into the weights of the Conv.

    With the scale γ/√(σ² + ε) of an output channel, weights become w·scale and the bias (b − μ)·scale + β, computed in
    float64.
    """
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(output.name for output in graph.output)
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        conv = makers.get(norm.input[0])
        if conv is None or conv.op_type != "Conv" or readers[norm.input[0]] != 1 or conv.input[1] not in arrays:
            continue
        gamma, beta, mean, variance = (arrays[name].astype(np.float64) for name in norm.input[1:5])
        epsilon = next((attribute.f for attribute in norm.attribute if attribute.name == "epsilon"), 1e-5)
        scale = gamma / np.sqrt(variance + epsilon)
        weight = arrays[conv.input[1]].astype(np.float64)
        bias = arrays[conv.input[2]].astype(np.float64) if len(conv.input) > 2 else np.zeros(len(weight))
        stem = conv.input[1].removesuffix(".weight")
        new_weight, new_bias = f"{stem}.folded.weight", f"{stem}.folded.bias"
        _add_initializer(graph, new_weight, weight * scale[:, None, None, None], np.float32)
        _add_initializer(graph, new_bias, (bias - mean) * scale + beta, np.float32)
        conv.input[1:] = [new_weight, new_bias]
        conv.output[0] = norm.output[0]
        graph.node.remove(norm)


def drop_unused_initializers(graph: onnx.GraphProto) -> None:
    """Remove initializers that no node reads."""
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def rename_values(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Rename inputs, outputs, nodes and intermediate values; intermediate values are named after their nodes."""
    counts: Counter[str] = Counter()
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        counts[node.op_type] += 1
        node.name = f"{node.op_type}_{counts[node.op_type]}"
        for output in node.output:
            names.setdefault(output, f"{node.name}_output")
    shapes = {
        name: f"{node.name}_shape"
        for node in graph.node
        if node.op_type in ("Reshape", "Tile")
        for name in node.input[1:2]
        if name in constants
    }
    for node in graph.node:
        node.input[:] = [names.get(name, shapes.get(name, name)) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for tensor in graph.initializer:
        tensor.name = shapes.get(tensor.name, tensor.name)
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)


def make_batch_symbolic(graph: onnx.GraphProto, batch: int) -> None:
    """Make the batch size of the graph dynamic.

    A Reshape whose first dimension is the exported batch size then copies this dimension from its input (0 in ONNX).
    The caller must verify the changed graph by running it.
    """
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for tensor in graph.initializer:
        if tensor.name in shapes:
            shape = numpy_helper.to_array(tensor).copy()
            if shape[0] == batch:
                shape[0] = 0
                tensor.CopyFrom(numpy_helper.from_array(shape.astype(np.int64), tensor.name))
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    del graph.value_info[:]


SPLIT_BY_INPUT = 13
"""Opset from which the sizes of a Split are an input; before, they are an attribute."""


def append_decode(
    model: onnx.ModelProto,
    levels: Sequence[str],
    output: str,
    anchors: Anchors,
    strides: Sequence[int],
    decode: DecodeKind,
    scale_xy: Sequence[float],
) -> None:
    """Add nodes that decode the raw outputs ``levels`` into ``output`` (N, boxes, 5+nc).

    The formulas are those of :func:`kubeyolo.evaluation.decode.decode`; all new names begin with ``decode/``.
    """
    graph, opset = model.graph, model.opset_import[0].version
    infos = {value.name: value for value in graph.output}
    decoded = []
    boxes = 0
    for name, level_anchors, stride, scale in zip(levels, anchors, strides, scale_xy, strict=True):
        shape = [dim.dim_value for dim in infos[name].type.tensor_type.shape.dim]
        decoded.append(_append_level(graph, name, shape, np.asarray(level_anchors), stride, decode, scale, opset))
        boxes += shape[1] * shape[2] * shape[3]
    graph.node.append(helper.make_node("Concat", decoded, [output], f"{DECODE_PREFIX}concat", axis=1))
    batch = infos[levels[0]].type.tensor_type.shape.dim[0]
    attributes = infos[levels[0]].type.tensor_type.shape.dim[4].dim_value
    first = batch.dim_param or batch.dim_value
    graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, [first, boxes, attributes]))


def _append_level(
    graph: onnx.GraphProto,
    raw: str,
    shape: Sequence[int],
    anchors: np.ndarray[Any, np.dtype[np.float64]],
    stride: int,
    decode: DecodeKind,
    scale: float,
    opset: int,
) -> str:
    """Add the nodes that decode one level; return the name of its (N, na·ny·nx, 5+nc) value."""
    _, per_cell, rows, columns, attributes = shape
    stem = f"{DECODE_PREFIX}{raw}/"
    cells = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1)[None, None]
    sizes = anchors.reshape(1, per_cell, 1, 1, 2)

    def constant(name: str, value: Any, kind: Any = np.float32) -> str:
        _add_initializer(graph, stem + name, value, kind)
        return stem + name

    def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> list[str]:
        made = [stem + name for name in outputs]
        graph.node.append(helper.make_node(kind, inputs, made, f"{stem}{kind}_{outputs[0]}", **attributes))
        return made

    sizes_of_parts = [2, 2, attributes - 4]
    parts = constant("parts", sizes_of_parts, np.int64) if opset >= SPLIT_BY_INPUT else ""

    def split(value: str, outputs: Sequence[str]) -> list[str]:
        if parts:
            return node("Split", [value, parts], outputs, axis=-1)
        return node("Split", [value], outputs, axis=-1, split=sizes_of_parts)

    [probability] = node("Sigmoid", [raw], ["probability"])
    centre, side, scores = split(probability, ["centre", "side", "scores"])
    [moved] = node("Mul", [centre, constant("pixels", scale * stride)], ["moved"])
    [xy] = node("Add", [moved, constant("cells", (cells - (scale - 1) / 2) * stride)], ["xy"])
    if decode == "yolov5":
        [square] = node("Mul", [side, side], ["square"])
        [wh] = node("Mul", [square, constant("sizes", 4 * sizes)], ["wh"])
    else:
        _, linear, _ = split(raw, ["raw_centre", "raw_side", "raw_scores"])
        [growth] = node("Exp", [linear], ["growth"])
        [wh] = node("Mul", [growth, constant("sizes", sizes)], ["wh"])
    [joined] = node("Concat", [xy, wh, scores], ["joined"], axis=-1)
    flat = constant("flat", [0, per_cell * rows * columns, attributes], np.int64)
    return node("Reshape", [joined, flat], ["flattened"])[0]


def _add_initializer(graph: onnx.GraphProto, name: str, value: Any, kind: Any) -> None:
    graph.initializer.append(numpy_helper.from_array(np.asarray(value, kind), name))


def check_graph(model: onnx.ModelProto, where: str) -> None:
    """Run ONNX's own checker with shape inference.

    Raises:
        WorkError: The model is not valid ONNX.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise WorkError(f"{where}: not valid ONNX ({str(error).splitlines()[0]}); report this as a bug") from error
