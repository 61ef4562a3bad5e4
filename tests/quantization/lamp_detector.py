"""A detector of a few convolutions that finds the object of a lamp, and images of lamps.

Two of its channels decide: the mean of red times a factor, and the mean of all colours, which is the only one that the
heads read. With a large factor both share a scale in which the second channel is rounded to 0.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.steps.fixed_detector import BOX, CLASSES, SIDE, fixed_manifest

STRIDE = 8
CHANNELS = 64
COLD = -12.0


def write_scenes(folder: Path, level: int = 230) -> Path:
    """Write a COCO data set of three images a split: a lamp of a grey level in the middle of the only object.

    With the level 0 the images are black.
    """
    rng = np.random.default_rng(0)
    (folder / "annotations").mkdir(parents=True)
    place = {"bbox": [BOX / 2, BOX / 2, BOX, BOX], "area": BOX * BOX, "iscrowd": 0, "category_id": 1}
    for split in ("train", "val"):
        (folder / split).mkdir()
        images, boxes = [], []
        for number in range(1, 4):
            cv2.imwrite(str(folder / split / f"{number}.png"), scene(rng, level))
            images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
            boxes.append({"id": number, "image_id": number, **place})
        categories = [{"id": number + 1, "name": name} for number, name in enumerate(CLASSES)]
        document = {"images": images, "annotations": boxes, "categories": categories}
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(document))
    return folder


def scene(rng: np.random.Generator, level: int = 230) -> np.ndarray:
    """Return an image (H, W, 3) in dark colours with a lamp."""
    pixels = rng.integers(0, 30 if level else 1, (SIDE, SIDE, 3)).astype(np.uint8)
    pixels[SIDE // 2 : SIDE // 2 + STRIDE, SIDE // 2 : SIDE // 2 + STRIDE] = level
    return pixels


def batches(count: int) -> list[np.ndarray]:
    """Return images (1, 3, H, W) in 0..1."""
    rng = np.random.default_rng(1)
    return [(scene(rng).transpose(2, 0, 1)[None] / 255).astype(np.float32) for _ in range(count)]


def lamp_detector(factor: float = 2000.0) -> onnx.ModelProto:
    """Return the detector in the form of an exported file, without decoding."""
    manifest, rng = fixed_manifest(), np.random.default_rng(2)
    values = 5 + len(CLASSES)
    stem = rng.uniform(0, 1 / (3 * STRIDE * STRIDE), (CHANNELS, 3, STRIDE, STRIDE)).astype(np.float32)
    stem[0] = 0
    stem[0, 0] = factor / (STRIDE * STRIDE)
    stem[1] = 1 / (3 * STRIDE * STRIDE)
    tensors = {"stem.weight": stem}
    nodes = [
        helper.make_node("Conv", ["images", "stem.weight"], ["stem"], "stem", strides=[STRIDE, STRIDE]),
        helper.make_node("LeakyRelu", ["stem"], ["features"], "activation", alpha=0.1),
    ]
    outputs = []
    for stride in manifest.strides:
        weight = rng.uniform(-1e-3, 1e-3, (3 * values, CHANNELS, 1, 1)).astype(np.float32)
        weight[:, 0] = 0
        bias = np.full(3 * values, COLD, np.float32)
        if stride == STRIDE:
            side = np.sqrt(BOX / np.array(manifest.anchors[0][2])) / 2
            box = np.array([0.25, 0.25, *side])
            bias[2 * values : 2 * values + 6] = [*np.log(box / (1 - box)), COLD, 4.0]
            weight[2 * values : 2 * values + 6] = 0
            weight[2 * values + 4, 1] = 20.0
        cells, name = SIDE // stride, f"raw_{stride}"
        tensors |= {f"{name}.weight": weight, f"{name}.bias": bias}
        tensors[f"{name}.shape"] = np.array([-1, 3, values, cells, cells])
        inputs, step = [f"{name}.weight", f"{name}.bias"], stride // STRIDE
        nodes += [
            helper.make_node("Conv", ["features", *inputs], [f"{name}.out"], f"head_{stride}", strides=[step, step]),
            helper.make_node("Reshape", [f"{name}.out", f"{name}.shape"], [f"{name}.split"], f"split_{stride}"),
            helper.make_node("Transpose", [f"{name}.split"], [name], f"last_{stride}", perm=[0, 1, 3, 4, 2]),
        ]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, cells, cells, values]))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    arrays = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "lamp", [images], outputs, arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
