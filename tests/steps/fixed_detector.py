"""Bundles whose networks find one box, the same in every image, and a data set where it is the right one.

A network that is `shift` pixels off has an AP that is known: the box is 32 pixels wide, so that its IoU is
(32 - shift) / (32 + shift).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kubeyolo.bundle import ONNX, ONNX_INT8, WEIGHTS, BundleManifest, open_bundle
from kubeyolo.data.dataset import open_dataset
from kubeyolo.models.named_facts import model_facts
from kubeyolo.publishing import derive_bundle, publish_bundle
from kubeyolo.steps.configure import bundle_config
from kubeyolo.steps.current import NETWORKS
from kubeyolo.steps.detection import evaluate_bundle, kept_result
from kubeyolo.storage.place import Place

MODEL = "yolov5n-r7"
CLASSES = ("disc", "ring")
SIDE = 64
BOX = 32
AP_OF_SHIFT = {0: 1.0, 4: 0.6, 6: 0.4}
_COLD, _HOT = -12.0, 4.0


def write_data(folder: Path, seed: int = 0, classes: tuple[str, ...] = CLASSES) -> Path:
    """Write a COCO data set of three images a split with the box in their middle, other pixels for each seed."""
    rng = np.random.default_rng(seed)
    categories = [{"id": number + 1, "name": name} for number, name in enumerate(classes)]
    (folder / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (folder / split).mkdir()
        images, boxes = [], []
        for number in range(1, 4):
            pixels = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            cv2.imwrite(str(folder / split / f"{number}.png"), pixels)
            images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
            place = {"bbox": [BOX / 2, BOX / 2, BOX, BOX], "area": BOX * BOX, "iscrowd": 0}
            boxes.append({"id": number, "image_id": number, "category_id": 1, **place})
        document = {"images": images, "annotations": boxes, "categories": categories}
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(document))
    return folder


def fixed_manifest(**more: Any) -> BundleManifest:
    """Return the manifest of a detector of the two classes, with more of its fields."""
    facts = model_facts(MODEL)
    return BundleManifest(
        model=MODEL,
        classes=CLASSES,
        category_ids=(1, 2),
        image_size=(SIDE, SIDE),
        strides=facts.strides,
        anchors=facts.anchors,
        **more,
    )


def fixed_bundle(
    folder: Path, shifts: Mapping[str, int], dataset: str = "", overrides: Mapping[str, float] = {}
) -> str:
    """Write a bundle with a network for each shift (onnx, int8), and, given a data set, with the numbers of it.

    The overrides are settings of the evaluation.
    """
    manifest = fixed_manifest()
    (folder / "files").mkdir(parents=True)
    files = {WEIGHTS: folder / "files" / WEIGHTS}
    files[WEIGHTS].write_text(json.dumps(shifts))
    for runtime, shift in shifts.items():
        name = {"onnx": ONNX, "int8": ONNX_INT8}[runtime]
        files[name] = folder / "files" / name
        onnx.save(_network(shift, manifest), files[name])
    bundle = publish_bundle(Place.of(folder / "plain"), manifest, files).uri
    if not dataset:
        return bundle
    opened, images = open_bundle(Place.of(bundle)), open_dataset(Place.of(dataset))
    config = bundle_config(opened.manifest, {"settings": json.dumps({"evaluate": dict(overrides)})}).config
    metrics = {
        runtime: kept_result(evaluate_bundle(opened, images, config, runtime).result, images.manifest.digest, config)
        for runtime in NETWORKS
        if runtime in shifts
    }
    return derive_bundle(opened, Place.of(folder / "bundle"), {}, metrics=metrics).uri


def _network(shift: int, manifest: BundleManifest) -> onnx.ModelProto:
    """Return a network that gives the same levels for each image of a batch."""
    nodes = [
        helper.make_node("Shape", ["images"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["batch"]),
    ]
    constants = {"zero": np.array([0]), "one": np.array([1])}
    outputs = []
    for level, stride in enumerate(manifest.strides):
        cells = SIDE // stride
        raw = np.full((1, 3, cells, cells, 5 + len(manifest.classes)), _COLD, np.float32)
        if level == 0:
            _place(raw, shift, stride, manifest.anchors[0][2])
        name = f"raw_{stride}"
        constants |= {f"{name}_value": raw, f"{name}_rest": np.array(raw.shape[1:])}
        nodes.append(helper.make_node("Concat", ["batch", f"{name}_rest"], [f"{name}_shape"], axis=0))
        nodes.append(helper.make_node("Expand", [f"{name}_value", f"{name}_shape"], [name]))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *raw.shape[1:]]))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "fixed", [images], outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _place(raw: np.ndarray, shift: int, stride: int, anchor: tuple[float, float]) -> None:
    """Let the cell of the box's centre find it, `shift` pixels to the right."""
    x, y = (SIDE / 2 + shift) / stride, SIDE / 2 / stride
    cell = raw[0, 2, int(y), int(x)]
    centre = [(x - int(x) + 0.5) / 2, (y - int(y) + 0.5) / 2]
    size = [np.sqrt(BOX / side) / 2 for side in anchor]
    probabilities = np.array([*centre, *size])
    cell[:4] = np.log(probabilities / (1 - probabilities))
    cell[4:6] = _HOT
