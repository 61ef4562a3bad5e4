"""Non-maximum suppression inside an ONNX file, by standard operators, for any number of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kubeyolo.arrays import Float32Array
from kubeyolo.bundle import BundleManifest
from kubeyolo.errors import InputError
from kubeyolo.evaluation.predictor import Thresholds
from kubeyolo.evaluation.runtimes import INPUT_NAME, PREDICTIONS_NAME, open_session
from kubeyolo.export.metadata import Suppression, onnx_metadata, read_metadata
from kubeyolo.export.mindspore_export import FILE_MODE
from kubeyolo.export.onnx_graph import SPLIT_BY_INPUT, check_graph
from kubeyolo.storage.integrity import appearing

DETECTIONS_NAME, COUNTS_NAME = "detections", "counts"
ROW = ("x1", "y1", "x2", "y2", "score", "class")
"""The values of a row of the output ``detections``."""

PREFIX = "nms/"


def export_nms(float_path: Path, path: Path, manifest: BundleManifest, thresholds: Thresholds) -> None:
    """Write a file that suppresses boxes itself, from a file of :func:`kubeyolo.export.onnx.export_onnx`.

    Its outputs are ``detections`` (N, max_det, 6) float32, best first, with the values :data:`ROW`, corners in pixels
    of the input, and ``counts`` (N,) int64, the number of detections of each image. The other rows are 0. If a network
    has fewer candidates than ``max_det``, there are only as many rows as candidates.

    The rows are those of :func:`kubeyolo.evaluation.nms.non_max_suppression`, except that the file compares all
    candidates, not only the best 30,000.

    Args:
        float_path: The file without suppression.
        path: The file to write.
        manifest: Manifest of the bundle.
        thresholds: Limits on the boxes of an image.

    Raises:
        InputError: The thresholds are not possible in ONNX; see :func:`check_thresholds`.
        WorkError: The changed file is not valid ONNX.
    """
    check_thresholds(thresholds)
    model = onnx.load(str(float_path))
    append_nms(model, thresholds)
    settings = Suppression(
        conf_threshold=thresholds.conf,
        iou_threshold=thresholds.iou,
        max_det=thresholds.max_det,
        multi_label=thresholds.multi_label,
    )
    metadata = onnx_metadata(manifest, model.opset_import[0].version, settings)
    del model.metadata_props[:]
    helper.set_model_props(model, metadata.properties)
    check_graph(model, str(path))
    with appearing(path) as part:
        onnx.save(model, str(part))
        part.chmod(FILE_MODE)


def check_thresholds(thresholds: Thresholds) -> None:
    """Refuse a measure of overlap that ONNX does not have.

    Raises:
        InputError: The overlap is not IoU.
    """
    if thresholds.nms != "greedy":
        raise InputError(
            f"evaluate.nms = {thresholds.nms}: the operator NonMaxSuppression of ONNX has IoU alone, so export.nms "
            "needs evaluate.nms=greedy; set it, or leave --nms out (export.nms=false)"
        )


def append_nms(model: onnx.ModelProto, thresholds: Thresholds) -> None:
    """Replace the outputs of a graph with those of :func:`export_nms`; all new names begin with ``nms/``."""
    graph = model.graph
    nodes = _Nodes(graph, model.opset_import[0].version)
    shape = next(value for value in graph.output if value.name == PREDICTIONS_NAME).type.tensor_type.shape.dim
    boxes, classes = shape[1].dim_value, shape[2].dim_value - 5
    rows = min(thresholds.max_det, boxes * classes)

    centre, side, objectness, by_class = nodes.split(PREDICTIONS_NAME, [2, 2, 1, classes])
    half = nodes.node("Mul", [side, nodes.constant("half", 0.5)])
    low, high = nodes.node("Sub", [centre, half]), nodes.node("Add", [centre, half])
    corners = nodes.node("Concat", [low, high], axis=2)
    scores = nodes.node("Mul", [by_class, objectness])
    if classes > 1 and not thresholds.multi_label:
        best = nodes.node("ArgMax", [scores], axis=2, keepdims=1)
        is_best = nodes.node("Equal", [best, nodes.constant("classes", np.arange(classes)[None, None], np.int64)])
        scores = nodes.node("Where", [is_best, scores, nodes.constant("no_score", 0.0)])

    limits = [
        nodes.constant("max_det", [thresholds.max_det], np.int64),
        nodes.constant("iou_threshold", [thresholds.iou]),
        nodes.constant("conf_threshold", [thresholds.conf]),
    ]
    transposed = nodes.node("Transpose", [scores], perm=[0, 2, 1])
    selected = nodes.node("NonMaxSuppression", [corners, transposed, *limits])
    # Image, class, box becomes image, box, class: TopK then keeps equal scores in the order of boxes and classes.
    places = nodes.node("Gather", [selected, nodes.constant("order", [0, 2, 1], np.int64)], axis=1)
    zeros = nodes.node("ConstantOfShape", [nodes.node("Shape", [scores])], value=_zero())
    kept = nodes.node("ScatterND", [zeros, places, nodes.node("GatherND", [scores, places])])
    candidates = nodes.node("Reshape", [kept, nodes.constant("flat", [0, boxes * classes], np.int64)])
    top, place = nodes.node("TopK", [candidates, nodes.constant("rows", [rows], np.int64)], outputs=2, axis=1)

    column = nodes.constant("column", [0, rows, 1], np.int64)
    count = nodes.constant("count_of_classes", classes, np.int64)
    box = nodes.node("Reshape", [nodes.node("Div", [place, count]), column])
    four = nodes.node("Expand", [box, nodes.constant("four", [1, 1, 4], np.int64)])
    label = nodes.node("Cast", [nodes.node("Mod", [place, count])], to=TensorProto.FLOAT)
    parts = [
        nodes.node("GatherElements", [corners, four], axis=1),
        nodes.node("Reshape", [top, column]),
        nodes.node("Reshape", [label, column]),
    ]
    found = nodes.node("Greater", [top, nodes.constant("least", thresholds.conf)])
    inputs = [nodes.node("Reshape", [found, column]), nodes.node("Concat", parts, axis=2), nodes.constant("empty", 0.0)]
    nodes.node("Where", inputs, name=DETECTIONS_NAME)
    nodes.sum_rows(nodes.node("Cast", [found], to=TensorProto.INT64), COUNTS_NAME)

    batch = shape[0].dim_param or shape[0].dim_value
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(DETECTIONS_NAME, TensorProto.FLOAT, [batch, rows, len(ROW)]))
    graph.output.append(helper.make_tensor_value_info(COUNTS_NAME, TensorProto.INT64, [batch]))


class NmsFile:
    """A file of :func:`export_nms` in onnxruntime.

    Args:
        path: The file.

    Raises:
        InputError: onnxruntime cannot load it, or it was not exported with suppression.
    """

    def __init__(self, path: Path) -> None:
        self._session = open_session(path)
        outputs = [value.name for value in self._session.get_outputs()]
        if outputs != [DETECTIONS_NAME, COUNTS_NAME]:
            raise InputError(
                f"{path}: outputs {outputs}, expected {[DETECTIONS_NAME, COUNTS_NAME]}; export the model with --nms"
            )
        self.metadata = read_metadata(self._session.get_modelmeta().custom_metadata_map, str(path))

    def rows(self, images: Float32Array) -> list[Float32Array]:
        """Return (k, 6) rows of each of the images (N, 3, H, W) in 0..1, best first; their values are :data:`ROW`."""
        detections, counts = self._session.run([DETECTIONS_NAME, COUNTS_NAME], {INPUT_NAME: images})
        return [rows[:count] for rows, count in zip(detections, counts, strict=True)]


class _Nodes:
    """Adds nodes and constants to a graph; the outputs of nodes get new names."""

    def __init__(self, graph: onnx.GraphProto, opset: int) -> None:
        self._graph = graph
        self._opset = opset
        self._counts: dict[str, int] = {}

    def constant(self, name: str, value: Any, kind: Any = np.float32) -> str:
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value, kind), PREFIX + name))
        return PREFIX + name

    def node(self, kind: str, inputs: Sequence[str], name: str = "", outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; return the name of its output, or the names of several outputs."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        stem = f"{PREFIX}{kind}_{self._counts[kind]}"
        names = [name] if name else [f"{stem}_output{number or ''}" for number in range(outputs)]
        self._graph.node.append(helper.make_node(kind, inputs, names, stem, **attributes))
        return names[0] if outputs == 1 else names

    def split(self, value: str, sizes: Sequence[int]) -> list[str]:
        if self._opset < SPLIT_BY_INPUT:
            names: list[str] = self.node("Split", [value], outputs=len(sizes), axis=2, split=list(sizes))
        else:
            names = self.node("Split", [value, self.constant("parts", sizes, np.int64)], outputs=len(sizes), axis=2)
        return names

    def sum_rows(self, value: str, name: str) -> None:
        """Add the sum of the last of two axes."""
        if self._opset < SPLIT_BY_INPUT:
            self.node("ReduceSum", [value], name, axes=[1], keepdims=0)
        else:
            self.node("ReduceSum", [value, self.constant("axis", [1], np.int64)], name, keepdims=0)


def _zero() -> onnx.TensorProto:
    return numpy_helper.from_array(np.zeros(1, np.float32))
