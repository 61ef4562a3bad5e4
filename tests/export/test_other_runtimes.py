"""OpenCV, which is installed with kubeyolo, loads the files that docs/deployment.md says it loads."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kubeyolo.arrays import Float32Array
from kubeyolo.evaluation.predictor import Thresholds
from kubeyolo.evaluation.runtimes import OnnxRuntime
from kubeyolo.export.onnx_nms import export_nms
from kubeyolo.quantization.int8 import quantize_onnx
from tests.export.tiny_detector import ExportedDetector, images


def in_opencv(path: Path, batch: Float32Array) -> Float32Array:
    network = cv2.dnn.readNetFromONNX(str(path))
    network.setInput(batch)
    predictions: Float32Array = network.forward("predictions")
    return predictions


@pytest.mark.parametrize("count", [1, 3])
def test_opencv_computes_the_predictions_of_the_float_file(detector: ExportedDetector, count: int) -> None:
    expected = OnnxRuntime(detector.onnx, detector.manifest).predictions(images(count))
    found = in_opencv(detector.onnx, images(count))
    assert expected is not None and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2)


def test_opencv_computes_int8_about_as_closely_as_onnxruntime(detector: ExportedDetector, tmp_path: Path) -> None:
    batch, path = images(2), tmp_path / "int8.onnx"
    quantize_onnx(detector.onnx, path, [image[None] for image in batch])
    exact = OnnxRuntime(detector.onnx, detector.manifest).predictions(batch)
    int8 = OnnxRuntime(path, detector.manifest).predictions(batch)
    assert exact is not None and int8 is not None
    errors = [np.sqrt(np.mean(np.square(each[..., 4:] - exact[..., 4:]))) for each in (in_opencv(path, batch), int8)]
    assert errors[0] <= 1.25 * errors[1] < 0.2


def test_opencv_refuses_the_file_with_suppression(detector: ExportedDetector, tmp_path: Path) -> None:
    export_nms(detector.onnx, tmp_path / "nms.onnx", detector.manifest, Thresholds())
    with pytest.raises(cv2.error, match="NonMaxSuppression"):
        in_opencv(tmp_path / "nms.onnx", images(1))
