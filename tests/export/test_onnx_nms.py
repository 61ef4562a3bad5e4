"""Suppression inside the graph finds what kubeyolo's own suppression finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from kubeyolo.arrays import Float32Array
from kubeyolo.data.decode import decode_image
from kubeyolo.errors import InputError
from kubeyolo.evaluation.nms import non_max_suppression
from kubeyolo.evaluation.predictor import Predictor, Thresholds, network_input, prepare
from kubeyolo.evaluation.runtimes import OnnxRuntime
from kubeyolo.export.metadata import Suppression
from kubeyolo.export.onnx_nms import COUNTS_NAME, DETECTIONS_NAME, NmsFile, append_nms, export_nms
from tests.export.tiny_detector import CLASSES, SIZE, ExportedDetector, images

EVALUATION = Thresholds(0.001, 0.65, 300, True)


def library(predictions: Float32Array, limits: Thresholds) -> list[Float32Array]:
    return non_max_suppression(predictions, limits.conf, limits.iou, limits.max_det, limits.multi_label)


def suppressing(boxes: int, classes: int, limits: Thresholds, opset: int = 17) -> onnx.ModelProto:
    """Return a graph whose input is `predictions` (N, boxes, 5+nc)."""
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", boxes, 5 + classes]) for n in ("in", "out")]
    values[1].name = "predictions"
    graph = helper.make_graph([helper.make_node("Identity", ["in"], ["predictions"])], "nms", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)
    append_nms(model, limits)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto, predictions: Float32Array) -> tuple[Float32Array, np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    detections, counts = session.run([DETECTIONS_NAME, COUNTS_NAME], {"in": predictions})
    return detections, counts


def crowded(images: int, boxes: int, classes: int, seed: int = 0) -> Float32Array:
    """Return predictions with many overlaps, equal scores, boxes without area, and boxes of infinite size."""
    rng = np.random.default_rng(seed)
    out = rng.random((images, boxes, 5 + classes)).astype(np.float32)
    out[..., :2] = rng.integers(0, 12, (images, boxes, 2)) * 8
    out[..., 2:4] = rng.integers(1, 6, (images, boxes, 2)) * 8
    out[..., 4:] = np.round(out[..., 4:], 1)
    out[:, ::17, 2] = 0
    out[:, ::23, 2:4] = np.inf
    return out


@pytest.mark.parametrize("opset", [11, 13, 17])
@pytest.mark.parametrize(
    "limits",
    [
        EVALUATION,
        Thresholds(0.25, 0.45, 300, False),
        Thresholds(0.3, 0.5, 7, True),
        Thresholds(0.0, 1.0, 10_000, True),
        Thresholds(0.999, 0.5, 5, True),
    ],
)
@pytest.mark.parametrize("classes", [1, 4])
def test_rows_are_those_of_the_library(opset: int, limits: Thresholds, classes: int) -> None:
    predictions = crowded(3, 150, classes)
    predictions[1, :, 4] = 0  # an image without detections between others
    with np.errstate(all="ignore"):
        expected = library(predictions, limits)
    detections, counts = run(suppressing(150, classes, limits, opset), predictions)
    assert detections.shape == (3, min(limits.max_det, 150 * classes), 6)
    assert counts.tolist() == [len(rows) for rows in expected] and counts[1] == 0
    for rows, count, wanted in zip(detections, counts, expected, strict=True):
        np.testing.assert_array_equal(rows[:count], wanted)
        assert not rows[count:].any()


def test_the_file_has_fixed_outputs_and_its_settings(detector: ExportedDetector, tmp_path: Path) -> None:
    path = tmp_path / "model-nms.onnx"
    export_nms(detector.onnx, path, detector.manifest, EVALUATION)
    file = NmsFile(path)
    assert file.metadata.nms == Suppression(conf_threshold=0.001, iou_threshold=0.65, max_det=300, multi_label=True)
    assert file.metadata.classes == CLASSES and file.metadata.image_size == SIZE
    model = onnx.load(str(path))
    assert [value.name for value in model.graph.output] == ["detections", "counts"]
    shapes = [[dim.dim_param or dim.dim_value for dim in v.type.tensor_type.shape.dim] for v in model.graph.output]
    assert shapes == [["N", 300, 6], ["N"]]
    assert path.stat().st_mode & 0o777 == 0o644
    predictions = OnnxRuntime(detector.onnx, detector.manifest).predictions(images(3))
    assert predictions is not None
    for rows, wanted in zip(file.rows(images(3)), library(predictions, EVALUATION), strict=True):
        assert len(rows) == len(wanted) > 100
        np.testing.assert_allclose(rows, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("limits", [EVALUATION, Thresholds(0.05, 0.45, 100, False)])
def test_the_file_finds_in_photographs_what_the_library_finds(
    detector: ExportedDetector, shared: Path, tmp_path: Path, limits: Thresholds
) -> None:
    photographs = sorted((shared / "data/coco_cc/val").glob("*.jpg"))[:20]
    decoded = [decode_image(path.read_bytes()) for path in photographs]
    preprocessing = detector.manifest.preprocessing
    prepared = [prepare(image, SIZE, preprocessing) for image in decoded if image is not None]
    batch = network_input(prepared, preprocessing)
    assert len(batch) == 20
    export_nms(detector.onnx, tmp_path / "nms.onnx", detector.manifest, limits)
    predictor = Predictor(detector.manifest, OnnxRuntime(detector.onnx, detector.manifest), "onnx", 20)
    found = NmsFile(tmp_path / "nms.onnx").rows(batch)
    for rows, wanted in zip(found, library(predictor.predictions(batch), limits), strict=True):
        assert len(rows) == len(wanted) > 20
        np.testing.assert_allclose(rows, wanted, rtol=1e-5, atol=1e-4)


def test_a_file_without_suppression_and_an_overlap_that_onnx_lacks_are_refused(
    detector: ExportedDetector, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"model\.onnx: outputs .* export the model with --nms"):
        NmsFile(detector.onnx)
    with pytest.raises(InputError, match="evaluate.nms = diou: .* leave --nms out"):
        export_nms(detector.onnx, tmp_path / "nms.onnx", detector.manifest, Thresholds(nms="diou"))
    assert list(tmp_path.iterdir()) == []
