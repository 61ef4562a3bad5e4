"""A bundle whose network finds one red, one green and one blue area exactly, made without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kubeyolo.bundle import ONNX, BundleManifest
from kubeyolo.models.named_facts import model_facts
from kubeyolo.publishing import publish_bundle
from kubeyolo.storage.place import Place

MODEL = "yolov5n-r7"
SIZE = (128, 128)
SCORE = 0.9


def colour_bundle(folder: Path, classes: Sequence[str] = ("red", "green", "blue")) -> str:
    """Publish a bundle of a detector of the first three classes: the red, the green and the blue area."""
    facts = model_facts(MODEL)
    manifest = BundleManifest(
        model=MODEL, classes=tuple(classes), image_size=SIZE, strides=facts.strides, anchors=facts.anchors
    )
    folder.mkdir(parents=True, exist_ok=True)
    network = folder / "network.onnx"
    onnx.save(_network(len(classes)), str(network))
    return publish_bundle(Place.of(folder / "bundle"), manifest, {ONNX: network}).uri


def _network(classes: int) -> onnx.ModelProto:
    """Return a graph from images (N, 3, H, W) to predictions (N, 3, 5 + classes)."""
    height, width = SIZE
    constants = {
        "bright": np.float32(0.8),
        "dark": np.float32(0.3),
        "half": np.float32(0.5),
        "score": np.float32(SCORE),
        "channel": np.int64([1]),
        "right_of": np.arange(1, width + 1, dtype=np.float32).reshape(1, 1, 1, width),
        "left_of": np.arange(width, 0, -1, dtype=np.float32).reshape(1, 1, 1, width),
        "below": np.arange(1, height + 1, dtype=np.float32).reshape(1, 1, height, 1),
        "above": np.arange(height, 0, -1, dtype=np.float32).reshape(1, 1, height, 1),
        "width": np.float32(width),
        "height": np.float32(height),
        "columns": np.int64([0, 3, 1]),
        "scores": np.eye(3, classes, dtype=np.float32).reshape(1, 3, classes),
    }
    node, nodes = helper.make_node, []
    for number in range(3):
        others = [other for other in range(3) if other != number]
        constants |= {f"own_{number}": np.int64([number]), f"others_{number}": np.int64(others)}
        nodes += [
            node("Gather", ["images", f"own_{number}"], [f"a{number}"], axis=1),
            node("Gather", ["images", f"others_{number}"], [f"b{number}"], axis=1),
            node("ReduceMax", [f"b{number}"], [f"c{number}"], axes=[1], keepdims=1),
            node("Greater", [f"a{number}", "bright"], [f"d{number}"]),
            node("Less", [f"c{number}", "dark"], [f"e{number}"]),
            node("And", [f"d{number}", f"e{number}"], [f"f{number}"]),
            node("Cast", [f"f{number}"], [f"mask{number}"], to=TensorProto.FLOAT),
        ]
    nodes.append(node("Concat", ["mask0", "mask1", "mask2"], ["mask"], axis=1))
    for name, ramp in (("x2", "right_of"), ("xr", "left_of"), ("y2", "below"), ("yr", "above")):
        nodes += [
            node("Mul", ["mask", ramp], [f"m_{name}"]),
            node("ReduceMax", [f"m_{name}"], [name], axes=[2, 3], keepdims=0),
        ]
    nodes += [node("Sub", ["width", "xr"], ["x1"]), node("Sub", ["height", "yr"], ["y1"])]
    for low, high, centre, size in (("x1", "x2", "cx", "w"), ("y1", "y2", "cy", "h")):
        nodes += [
            node("Sub", [high, low], [size]),
            node("Add", [low, high], [f"s_{centre}"]),
            node("Mul", [f"s_{centre}", "half"], [centre]),
        ]
    nodes += [
        node("ReduceMax", ["mask"], ["any"], axes=[2, 3], keepdims=0),
        node("Mul", ["any", "score"], ["objectness"]),
    ]
    columns = ["cx", "cy", "w", "h", "objectness"]
    constants["last"] = np.int64([2])
    nodes += [node("Unsqueeze", [name, "last"], [f"u_{name}"]) for name in columns]
    nodes += [
        node("Concat", [f"u_{name}" for name in columns], ["boxes"], axis=2),
        node("Mul", ["u_objectness", "scores"], ["zeroed"]),
        node("Sub", ["scores", "zeroed"], ["rest"]),
        node("Add", ["zeroed", "rest"], ["expanded"]),
        node("Concat", ["boxes", "expanded"], ["predictions"], axis=2),
    ]
    nodes += [node("Identity", ["mask"], [f"raw_{stride}"]) for stride in (8, 16, 32)]
    outputs = ["predictions", "raw_8", "raw_16", "raw_32"]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, height, width])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
