from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kubeyolo.bundle import MINDIR, ONNX, WEIGHTS
from kubeyolo.errors import InputError
from kubeyolo.evaluation.network import load_network
from kubeyolo.evaluation.predictor import load_predictor
from kubeyolo.publishing import publish_bundle
from kubeyolo.storage.place import Place
from tests.evaluation.rectangles import RectangleSplit, detect
from tests.export.tiny_detector import manifest

WITHOUT_MINDSPORE = """
import json, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("mindspore", "onnx", "torch"):
            raise ImportError(f"{name} must not be imported")

sys.meta_path.insert(0, Refuse())
from kubeyolo.bundle import open_bundle
from kubeyolo.config.schema import EvaluateConfig
from kubeyolo.evaluation.predictor import Thresholds, load_predictor
from kubeyolo.evaluation.split_evaluation import evaluate_split
from kubeyolo.storage.place import Place
from tests.evaluation.rectangles import RectangleSplit, dataset_manifest, detect

predictor = load_predictor(open_bundle(Place.of(sys.argv[1])), "onnx", batch_size=2)
split = RectangleSplit(3)
result, rows = evaluate_split(predictor, split, dataset_manifest(), EvaluateConfig())
boxes = detect(predictor, [split.read_image(0)], conf=0.05)
print(json.dumps({"images": result.images, "AP": result.numbers["AP"], "boxes": boxes[0].tolist()}))
"""


@pytest.fixture(scope="module")
def bundle(detector, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    files = {WEIGHTS: detector.weights, ONNX: detector.onnx, MINDIR: detector.mindir}
    return publish_bundle(Place.of(folder / "detector"), detector.manifest, files)


def test_all_runtimes_find_the_same_boxes(bundle):
    split = RectangleSplit(3)
    images = [split.read_image(i) for i in range(3)]
    found = {
        name: detect(load_predictor(bundle, name, batch_size=2), images, conf=0.05, multi_label=True)
        for name in ("mindspore", "onnx", "mindir")
    }
    assert sum(len(rows) for rows in found["mindspore"]) > 20
    for name in ("onnx", "mindir"):
        for got, expected in zip(found[name], found["mindspore"], strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-2, err_msg=name)


def test_onnx_bundles_are_evaluated_without_mindspore(bundle):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MINDSPORE, bundle.uri],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["images"] == 3 and 0 <= found["AP"] <= 1
    here = detect(load_predictor(bundle, "onnx", batch_size=2), [RectangleSplit(3).read_image(0)], conf=0.05)
    np.testing.assert_allclose(found["boxes"], here[0], atol=1e-3)


def test_unknown_runtimes_and_missing_files_are_refused(bundle):
    with pytest.raises(InputError, match="unknown runtime 'onx'; did you mean 'onnx'"):
        load_predictor(bundle, "onx")
    with pytest.raises(InputError, match="model-int8.onnx"):
        load_predictor(bundle, "int8")


def test_onnx_keeps_its_image_size(bundle):
    with pytest.raises(InputError, match="64 x 64: the onnx file of this bundle was exported for 96 x 128"):
        load_predictor(bundle, "onnx", image_size=(64, 64))


def test_a_broken_onnx_file_is_one_line(detector, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(detector.onnx.read_bytes()[:5000])
    bundle = publish_bundle(Place.of(tmp_path / "bundle"), detector.manifest, {ONNX: tmp_path / "broken.onnx"})
    with pytest.raises(InputError, match="model.onnx: onnxruntime cannot load it") as raised:
        load_predictor(bundle, "onnx")
    assert "\n" not in str(raised.value)


def test_onnx_of_another_model_is_refused(detector, tmp_path):
    other = manifest(strides=(8, 16, 64))
    bundle = publish_bundle(Place.of(tmp_path / "bundle"), other, {ONNX: detector.onnx})
    with pytest.raises(InputError, match="expected .*raw_64"):
        load_predictor(bundle, "onnx")


def test_backbones_do_not_detect(tmp_path, detector):
    bundle = publish_bundle(Place.of(tmp_path / "bundle"), manifest(kind="backbone"), {WEIGHTS: detector.weights})
    with pytest.raises(InputError, match="of a backbone, not of a detector; give a detector"):
        load_predictor(bundle)


def test_weights_that_do_not_fit_are_refused(detector, tmp_path):
    wrong = r"not the weights of yolov5n-r7 with 4 classes: head\.m\.0\.bias is \(24,\), must be \(27,\); .* and 3 more"
    with pytest.raises(InputError, match=wrong):
        load_network(manifest(classes=("a", "b", "c", "d")), detector.weights)
    with pytest.raises(InputError, match="yolov5s-r7"):
        load_network(manifest(model="yolov5s-r7"), detector.weights)
    (tmp_path / "weights.safetensors").write_text("nothing")
    with pytest.raises(InputError, match="weights.safetensors: not a readable safetensors file"):
        load_network(manifest(), tmp_path / "weights.safetensors")
