"""Post-training quantization of an exported detector to int8 ONNX: calibrated once, written in any form."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from kubeyolo.arrays import Float32Array
from kubeyolo.config.schema import QuantizedFor
from kubeyolo.errors import WorkError, check_known
from kubeyolo.export.mindspore_export import FILE_MODE
from kubeyolo.quantization.calibration import Calibration, calibrate
from kubeyolo.quantization.qdq import Range, convolutions, count_quantized_convolutions, qdq_model, read_float_model
from kubeyolo.storage.integrity import appearing

_FAILURES = (ValueError, RuntimeError, TypeError, onnx.checker.ValidationError)
"""What onnxruntime raises when it cannot quantize a model."""


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
        runtime: Runtime that the file is written for.
        float_layers: Names of the convolutions that stay float.
    """

    convs: int
    quantized_convs: int
    float_bytes: int
    int8_bytes: int
    calibration_images: int
    calibration: str
    runtime: str = "onnxruntime"
    float_layers: tuple[str, ...] = ()

    @property
    def quantized_share(self) -> float:
        """Share of the convolutions that are quantized, 0..1."""
        return self.quantized_convs / self.convs if self.convs else 0.0

    @property
    def size_ratio(self) -> float:
        """Size of the int8 file relative to the float file."""
        return self.int8_bytes / self.float_bytes


@dataclass(frozen=True)
class CalibratedNetwork:
    """A float network and the ranges of its activations, from which int8 files are written.

    Attributes:
        path: The float file.
        model: Its content, see :func:`kubeyolo.quantization.qdq.read_float_model`.
        ranges: Range of each activation by its name.
        images: Number of calibration images.
        calibration: How the ranges were chosen.
    """

    path: Path
    model: onnx.ModelProto
    ranges: Mapping[str, Range]
    images: int
    calibration: Calibration

    @property
    def layers(self) -> list[str]:
        """Names of the convolutions, in the order of the graph."""
        return list(convolutions(self.model.graph))

    def write(
        self, out_path: Path, runtime: QuantizedFor = "onnxruntime", float_layers: Collection[str] = ()
    ) -> QuantizationFacts:
        """Write the int8 file.

        Args:
            out_path: The file to write; it appears when it is complete.
            runtime: Runtime that the file is written for.
            float_layers: Names of convolutions that stay float.

        Raises:
            InputError: The network has no such convolution.
            WorkError: onnxruntime cannot quantize the model.
        """
        kept = tuple(name for name in self.layers if name in float_layers)
        for name in float_layers:
            check_known("convolution in quantize.float_layers", name, self.layers)
        facts = {"quantization": f"int8 QDQ, {self.calibration}", "quantized_for": runtime}
        if kept:
            facts["float_layers"] = ", ".join(kept)
        try:
            with appearing(out_path) as part:
                quantized = qdq_model(self.model, self.ranges, self.path, runtime, kept, metadata=facts)
                onnx.checker.check_model(quantized, full_check=True)
                onnx.save(quantized, str(part))
                part.chmod(FILE_MODE)
        except _FAILURES as error:
            raise _not_quantizable(self.path, error) from error
        convs, quantized_convs = count_quantized_convolutions(quantized.graph)
        return QuantizationFacts(
            convs=convs,
            quantized_convs=quantized_convs,
            float_bytes=self.path.stat().st_size,
            int8_bytes=out_path.stat().st_size,
            calibration_images=self.images,
            calibration=self.calibration,
            runtime=runtime,
            float_layers=kept,
        )


def calibrated(path: Path, images: Sequence[Float32Array], calibration: Calibration = "minmax") -> CalibratedNetwork:
    """Calibrate a file written by :func:`kubeyolo.export.onnx.export_onnx`.

    Args:
        path: The float file.
        images: Letterboxed training images, each (1, 3, H, W) float32 in 0..1.
        calibration: How to choose the range of activations.

    Raises:
        InputError: There are no images, the calibration is unknown, or the file was not exported by kubeyolo.
        WorkError: onnxruntime cannot run the model.
    """
    model = read_float_model(path)
    try:
        ranges = calibrate(model, path.name, images, calibration)
    except _FAILURES as error:
        raise _not_quantizable(path, error) from error
    return CalibratedNetwork(path, model, ranges, len(images), calibration)


def quantize_onnx(
    float_path: Path,
    out_path: Path,
    images: Sequence[Float32Array],
    calibration: Calibration = "minmax",
    runtime: QuantizedFor = "onnxruntime",
) -> QuantizationFacts:
    """Calibrate and quantize a file; see :func:`calibrated` and :meth:`CalibratedNetwork.write`."""
    return calibrated(float_path, images, calibration).write(out_path, runtime)


def _not_quantizable(path: Path, error: Exception) -> WorkError:
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return WorkError(f"{path}: onnxruntime cannot quantize it ({line}); try a different quantize.calibration")
