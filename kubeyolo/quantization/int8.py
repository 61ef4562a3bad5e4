"""Post-training quantization of an exported detector to int8 ONNX (QuantizeLinear/DequantizeLinear pairs)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx
from onnx import helper, version_converter
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from kubeyolo.arrays import Float32Array
from kubeyolo.bundle import BundleManifest
from kubeyolo.errors import InputError, WorkError
from kubeyolo.evaluation.predictor import network_input, prepare
from kubeyolo.evaluation.runtimes import INPUT_NAME, PREDICTIONS_NAME
from kubeyolo.export.mindspore_export import FILE_MODE
from kubeyolo.export.onnx import IR_VERSIONS
from kubeyolo.export.onnx_graph import drop_unused_initializers
from kubeyolo.progress import Progress
from kubeyolo.storage.integrity import appearing

if TYPE_CHECKING:
    from kubeyolo.data.dataset import Split

Calibration = Literal["minmax", "entropy", "percentile"]
_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}

# SiLU is x·σ(x): if its Mul is quantized too, values stay int8 from one convolution to the next.
QUANTIZED_OPERATORS = ("Conv", "MaxPool", "Concat", "Mul", "Add")
PERCENTILE = 99.999
CHUNK = 4
LEAST_OPSET = 13
"""Opset from which a scale for each channel is possible."""

_PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}


@dataclass(frozen=True)
class QuantizationFacts:
    """Sizes and counts of a quantization.

    Attributes:
        convs: Number of convolutions of the network.
        quantized_convs: Number of convolutions with both data and weights in int8.
        float_bytes: Size of the float file.
        int8_bytes: Size of the int8 file.
        calibration_images: Number of calibration images.
        calibration: How ranges were chosen from the images.
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
        """Size of the int8 file relative to the float file."""
        return self.int8_bytes / self.float_bytes


class CalibrationImages(Sequence[Float32Array]):
    """Images of a split, drawn without replacement, letterboxed as for detection, and read on access.

    Items are (1, 3, H, W) float32 in 0..1. If a split has fewer images than ``count``, all images are used.

    Args:
        split: The training images.
        manifest: Manifest of the bundle, with image size and preprocessing.
        count: Number of images.
        seed: Seed of the draw.
    """

    def __init__(self, split: Split, manifest: BundleManifest, count: int, seed: int = 0) -> None:
        total = len(split.index)
        drawn = np.random.default_rng(seed).choice(total, min(count, total), replace=False)
        self._numbers: list[int] = sorted(drawn.tolist())
        self._split = split
        self._manifest = manifest

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, item: int) -> Float32Array:  # type: ignore[override]  # slices are not needed
        image = self._split.read_image(self._numbers[item])
        preprocessing = self._manifest.preprocessing
        return network_input([prepare(image, self._manifest.image_size, preprocessing)], preprocessing)

    def __iter__(self) -> Iterator[Float32Array]:
        return (self[number] for number in range(len(self)))


def quantize_onnx(
    float_path: Path, out_path: Path, images: Sequence[Float32Array], calibration: Calibration = "minmax"
) -> QuantizationFacts:
    """Quantize a file written by :func:`kubeyolo.export.onnx.export_onnx`.

    Weights are symmetric int8 per output channel, activations asymmetric uint8 per tensor. The outputs of the last
    convolutions and the decoding after them stay float: one scale cannot represent both pixels and scores.

    Args:
        float_path: The float model.
        out_path: The file to write.
        images: Letterboxed training images, each (1, 3, H, W) float32 in 0..1.
        calibration: How to choose the range of activations: by their extremes, by the least KL divergence, or by their
            99.999th percentile.

    Raises:
        InputError: There are no images, the calibration is unknown, or the file was not exported by kubeyolo.
        WorkError: onnxruntime cannot quantize the model.
    """
    if not len(images):
        raise InputError("no calibration images; quantize.calibration_images and the train split must not be empty")
    if calibration not in _METHODS:
        raise InputError(f"unknown calibration {calibration!r}; known: {', '.join(_METHODS)}")
    model = read_model(float_path)
    try:
        with appearing(out_path) as part:
            quantized = _quantized(model, float_path, part, images, calibration)
            onnx.checker.check_model(quantized, full_check=True)
            onnx.save(quantized, str(part))
            part.chmod(FILE_MODE)
    except (ValueError, RuntimeError, TypeError, onnx.checker.ValidationError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        message = f"{float_path}: onnxruntime cannot quantize it ({line}); try a different quantize.calibration"
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


def _quantized(
    model: onnx.ModelProto, float_path: Path, path: Path, images: Sequence[Float32Array], calibration: Calibration
) -> onnx.ModelProto:
    """Return the quantized model; onnxruntime writes it to a file first."""
    properties = {entry.key: entry.value for entry in model.metadata_props}
    if model.opset_import[0].version < LEAST_OPSET:
        model = version_converter.convert_version(model, LEAST_OPSET)
        model.ir_version = IR_VERSIONS[LEAST_OPSET]
    heads = [node.output[0] for node in head_convolutions(model.graph, float_path)]
    helper.set_model_props(model, {**properties, **_PREPARED})
    # The histogram calibrators print their progress.
    with Progress(f"calibrating {float_path.name}", len(images)) as progress, redirect_stdout(StringIO()):
        quantize_static(
            model,
            str(path),
            _Reader(images, progress),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED_OPERATORS),
            nodes_to_exclude=_behind(model.graph, heads),
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            calibrate_method=_METHODS[calibration],
            extra_options={"CalibStridedMinMax": _divisor(len(images), CHUNK), "CalibPercentile": PERCENTILE},
        )
    quantized = onnx.load(str(path))
    keep_float(quantized.graph, heads)
    helper.set_model_props(quantized, {**properties, "quantization": f"int8 QDQ, {calibration}"})
    return quantized


def count_quantized_convolutions(graph: onnx.GraphProto) -> tuple[int, int]:
    """Return the number of Conv nodes, and the number of those that read data and weights from DequantizeLinear."""
    makers = {output: node.op_type for node in graph.node for output in node.output}
    convs = [node for node in graph.node if node.op_type == "Conv"]
    quantized = [node for node in convs if all(makers.get(name) == "DequantizeLinear" for name in node.input[:2])]
    return len(convs), len(quantized)


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
    drop_unused_initializers(graph)
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


def read_model(path: Path) -> onnx.ModelProto:
    """Read a float file that can be quantized.

    Raises:
        InputError: It is not an ONNX file of kubeyolo, or is made for batches of more than one image.
    """
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf's errors have no public base class
        raise InputError(f"{path}: not a readable ONNX file ({error}); export the model again") from error
    if [value.name for value in model.graph.input] != [INPUT_NAME]:
        raise InputError(f"{path}: its input is not {INPUT_NAME!r}; export the model again")
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    if batch > 1:
        raise InputError(
            f"{path}: exported for batches of {batch} images; export it with a dynamic batch size, or for one image"
        )
    return model


def _divisor(total: int, most: int) -> int:
    """Return the largest divisor of ``total`` up to ``most``: onnxruntime needs chunks of equal size."""
    return next(size for size in range(min(most, total), 0, -1) if total % size == 0)


class _Reader(CalibrationDataReader):
    """Passes the images to onnxruntime in chunks, which limit the memory for histograms."""

    def __init__(self, images: Sequence[Float32Array], progress: Progress) -> None:
        self._images = images
        self._progress = progress
        self.set_range(0, len(images))

    def __len__(self) -> int:
        return len(self._images)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Start again at an image, and stop before the image at ``end_index``."""
        self._rest = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, Float32Array] | None:
        """Return the next image by the name of the network's input, or None after the last image."""
        number = next(self._rest, None)
        if number is None:
            return None
        self._progress.advance()
        return {INPUT_NAME: self._images[number]}
