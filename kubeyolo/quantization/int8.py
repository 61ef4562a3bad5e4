"""Post-training quantization of an exported detector to int8 ONNX (QuantizeLinear/DequantizeLinear pairs)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import onnx
from onnx import helper

from kubeyolo.arrays import Float32Array
from kubeyolo.errors import InputError, WorkError
from kubeyolo.evaluation.runtimes import INPUT_NAME, PREDICTIONS_NAME
from kubeyolo.progress import Progress
from kubeyolo.storage.integrity import appearing

Calibration = Literal["minmax", "entropy", "percentile"]

# SiLU is x·σ(x): with its Mul quantized too, values stay int8 from one convolution to the next.
QUANTIZED_OPERATORS = ("Conv", "MaxPool", "Concat", "Mul", "Add")
PERCENTILE = 99.999
CHUNK = 4
_PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}
_FILE_MODE = 0o644


@dataclass(frozen=True)
class QuantizationFacts:
    """What was quantized.

    Attributes:
        convs: Convolutions of the network.
        quantized_convs: Those with both data and weights in int8.
        float_bytes: Size of the float file.
        int8_bytes: Size of the int8 file.
        calibration_images: Images that were looked at.
        calibration: How ranges were chosen from them.
    """

    convs: int
    quantized_convs: int
    float_bytes: int
    int8_bytes: int
    calibration_images: int
    calibration: str

    @property
    def quantized_share(self) -> float:
        """Share of the convolutions that are quantized, 0..1."""
        return self.quantized_convs / self.convs if self.convs else 0.0

    @property
    def size_ratio(self) -> float:
        """Size of the int8 file relative to the float one."""
        return self.int8_bytes / self.float_bytes


def quantize_onnx(
    float_path: Path,
    out_path: Path,
    images: Sequence[Float32Array],
    calibration: Calibration = "minmax",
    operators: Sequence[str] = QUANTIZED_OPERATORS,
    reduce_range: bool = False,
) -> QuantizationFacts:
    """Quantize a file of :func:`kubeyolo.export.onnx.export_onnx`.

    Weights are symmetric int8 per output channel, activations asymmetric uint8 per tensor. The outputs of the last
    convolutions and the decoding after them stay float: one scale cannot hold pixels and scores.

    Args:
        float_path: The float model.
        out_path: The file to write.
        images: (1, 3, H, W) float32 in 0..1, one each: letterboxed training images.
        calibration: Range of activations: their extremes, that of least KL divergence, or their 99.999th percentile.
        operators: ONNX operators whose values are quantized; must hold Conv.
        reduce_range: 7-bit weights, for x86 processors without VNNI, whose 16-bit sums of int8 products saturate.

    Raises:
        InputError: No images, an unknown way of calibration, or the file is not one of ours.
        WorkError: onnxruntime cannot quantize the model.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    if not len(images):
        raise InputError("no calibration images; quantize.calibration_images and the train split must not be empty")
    method = _calibration_method(calibration)
    model = _read_model(float_path)
    properties = {one.key: one.value for one in model.metadata_props}
    heads = head_convolutions(model.graph, float_path)
    helper.set_model_props(model, {**properties, **_PREPARED})
    try:
        with appearing(out_path) as part:
            # The histogram calibrators print what they do.
            with Progress(f"calibrating {float_path.name}", len(images)) as progress, redirect_stdout(StringIO()):
                quantize_static(
                    model,
                    str(part),
                    _reader(images, progress),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=list(operators),
                    nodes_to_exclude=_behind(model.graph, [node.output[0] for node in heads]),
                    per_channel=True,
                    reduce_range=reduce_range,
                    weight_type=QuantType.QInt8,
                    activation_type=QuantType.QUInt8,
                    calibrate_method=method,
                    extra_options={"CalibStridedMinMax": _divisor(len(images), CHUNK), "CalibPercentile": PERCENTILE},
                )
            quantized = onnx.load(str(part))
            keep_float(quantized.graph, [node.output[0] for node in heads])
            helper.set_model_props(quantized, {**properties, "quantization": f"int8 QDQ, {calibration}"})
            onnx.checker.check_model(quantized, full_check=True)
            onnx.save(quantized, str(part))
            part.chmod(_FILE_MODE)
    except (ValueError, RuntimeError, TypeError, onnx.checker.ValidationError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        message = f"{float_path}: onnxruntime cannot quantize it ({line}); try another quantize.calibration"
        raise WorkError(message) from error
    convs, quantized_convs = count_quantized_convolutions(quantized.graph)
    return QuantizationFacts(
        convs=convs,
        quantized_convs=quantized_convs,
        float_bytes=float_path.stat().st_size,
        int8_bytes=out_path.stat().st_size,
        calibration_images=len(images),
        calibration=calibration,
    )


def count_quantized_convolutions(graph: onnx.GraphProto) -> tuple[int, int]:
    """Return how many Conv nodes there are, and how many read data and weights from DequantizeLinear."""
    makers = {output: node.op_type for node in graph.node for output in node.output}
    convs = [node for node in graph.node if node.op_type == "Conv"]
    quantized = [node for node in convs if all(makers.get(name) == "DequantizeLinear" for name in node.input[:2])]
    return len(convs), len(quantized)


def head_convolutions(graph: onnx.GraphProto, path: Path) -> list[onnx.NodeProto]:
    """Return the convolutions whose reshaped outputs are the ``raw_*`` outputs.

    Raises:
        InputError: An output has no such convolution.
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
            raise InputError(f"{path}: output {output.name!r} is not that of a detector's head; export the model again")
        heads.append(node)
    return heads


def keep_float(graph: onnx.GraphProto, values: Sequence[str]) -> None:
    """Remove the QuantizeLinear/DequantizeLinear pair behind each of these values."""
    for value in values:
        pair = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == value]
        pair += [
            node
            for node in graph.node
            if node.op_type == "DequantizeLinear" and pair and node.input[0] == pair[0].output[0]
        ]
        if not pair:
            continue
        back = {node.output[0]: value for node in pair}
        for node in pair:
            graph.node.remove(node)
        for node in graph.node:
            node.input[:] = [back.get(name, name) for name in node.input]
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    del graph.value_info[:]


def _behind(graph: onnx.GraphProto, values: Sequence[str]) -> list[str]:
    """Return the names of all nodes that depend on these values; nodes are in topological order."""
    reached = set(values)
    names = []
    for node in graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
            names.append(node.name)
    return names


def _read_model(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf's own error has no base that is public
        raise InputError(f"{path}: not a readable ONNX file ({error}); export the model again") from error
    if [value.name for value in model.graph.input] != [INPUT_NAME]:
        raise InputError(f"{path}: its input is not {INPUT_NAME!r}; export the model again")
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    if batch > 1:
        raise InputError(f"{path}: exported for batches of {batch} images; export it for any number, or for one")
    return model


def _calibration_method(calibration: str) -> Any:
    from onnxruntime.quantization import CalibrationMethod

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    if calibration not in methods:
        raise InputError(f"unknown calibration {calibration!r}; known: {', '.join(methods)}")
    return methods[calibration]


def _divisor(total: int, most: int) -> int:
    """Return the largest divisor of ``total`` up to ``most``: onnxruntime collects in equal chunks only."""
    return next(size for size in range(min(most, total), 0, -1) if total % size == 0)


def _reader(images: Sequence[Float32Array], progress: Progress) -> Any:
    """Return onnxruntime's reader over the images; chunks bound the memory that histograms need."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.set_range(0, len(images))

        def __len__(self) -> int:
            return len(images)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._rest = iter(range(start_index, end_index))

        def get_next(self) -> dict[str, Float32Array] | None:
            number = next(self._rest, None)
            if number is None:
                return None
            progress.advance()
            return {INPUT_NAME: images[number]}

    return Reader()
