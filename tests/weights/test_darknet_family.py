"""Weights of the darknet family: from .weights and PyTorch files into bundles, and out again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from kubeyolo.bundle import WEIGHTS, open_bundle
from kubeyolo.evaluation.network import load_network
from kubeyolo.evaluation.runtimes import CellRuntime
from kubeyolo.publishing import publish_bundle
from kubeyolo.storage.place import Place
from kubeyolo.weights.darknet import write_darknet
from kubeyolo.weights.exporting import export_weights
from kubeyolo.weights.importing import import_weights
from kubeyolo.weights.network_parameters import network_parameters
from tests.weights.torch_writer import TorchFile, ordered

MODEL = "yolov4-tiny"


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(0)
    convolutions = network_parameters(MODEL, 3).darknet_convolutions()
    arrays = {
        name: generator.uniform(0.5, 1.5, shape).astype(np.float32)
        for one in convolutions
        for name, shape in one.arrays()
    }
    path = tmp_path_factory.mktemp("darknet") / "tiny.weights"
    write_darknet(path, convolutions, arrays.__getitem__)
    return path


def floats(path: Path) -> NDArray[np.float32]:
    return np.frombuffer(path.read_bytes()[20:], "<f4")


def test_a_weights_file_goes_into_a_bundle_and_comes_out_the_same(tmp_path: Path, weights_file: Path) -> None:
    imported = import_weights(weights_file, MODEL, str(tmp_path / "bundle"))
    assert (imported.format, imported.layout, imported.classes) == (
        "darknet",
        "darknet",
        ("class_0", "class_1", "class_2"),
    )
    bundle = open_bundle(Place.of(imported.bundle))
    assert bundle.manifest.bn_eps is None
    network = load_network(bundle.manifest, bundle.path(WEIGHTS))
    assert network.facts.bn_eps == 1e-5
    # The file begins with beta, gamma, mean and variance of the stem, then its weights.
    numbers = floats(weights_file)
    np.testing.assert_array_equal(network.backbone.stem.bn.beta.asnumpy(), numbers[:32])
    np.testing.assert_array_equal(network.backbone.stem.bn.moving_variance.asnumpy(), numbers[96:128])
    np.testing.assert_array_equal(network.backbone.stem.conv.weight.asnumpy().reshape(-1), numbers[128 : 128 + 864])
    # It ends with the head of stride 16.
    np.testing.assert_array_equal(network.head.m[0].weight.asnumpy().reshape(-1), numbers[-24 * 256 :])
    export_weights(imported.bundle, tmp_path / "again.weights")
    np.testing.assert_array_equal(floats(tmp_path / "again.weights"), numbers)


def test_the_beginning_of_a_weights_file_is_a_backbone(tmp_path: Path, weights_file: Path) -> None:
    whole = import_weights(weights_file, MODEL, str(tmp_path / "whole"), backbone=True)
    export_weights(whole.bundle, tmp_path / "backbone.weights")
    beginning = floats(tmp_path / "backbone.weights")
    np.testing.assert_array_equal(beginning, floats(weights_file)[: len(beginning)])
    again = import_weights(tmp_path / "backbone.weights", MODEL, str(tmp_path / "again"), backbone=True)
    assert again.arrays == whole.arrays


def test_files_of_the_pytorch_programs_that_read_cfg_files_record_their_eps(tmp_path: Path, weights_file: Path) -> None:
    bundle = import_weights(weights_file, MODEL, str(tmp_path / "first")).bundle
    export_weights(bundle, tmp_path / "names.safetensors", "darknet")
    from safetensors.numpy import load_file

    file, cells = TorchFile(), {"conv": "Conv2d", "bn": "BatchNorm2d"}
    tree = {}
    for name, array in load_file(tmp_path / "names.safetensors").items():
        layer, cell, leaf = name.split(".")
        tree[f"module_list.{int(layer.removeprefix('layer'))}.{cells[cell]}.{leaf}"] = file.tensor(array)
    path = file.write(tmp_path / "a.pt", ordered(tree))
    imported = import_weights(path, MODEL, str(tmp_path / "second"))
    assert imported.layout == "darknet"
    manifest = open_bundle(Place.of(imported.bundle)).manifest
    assert manifest.bn_eps == 1e-4
    network = load_network(manifest, open_bundle(Place.of(imported.bundle)).path(WEIGHTS))
    assert network.backbone.stem.bn.eps == 1e-4
    first = open_bundle(Place.of(bundle)).path(WEIGHTS).read_bytes()
    assert open_bundle(Place.of(imported.bundle)).path(WEIGHTS).read_bytes() == first
    # A backbone is trained on by a network that adds 1e-5: the rest goes into the variances.
    backbone = open_bundle(Place.of(import_weights(path, MODEL, str(tmp_path / "backbone"), backbone=True).bundle))
    assert backbone.manifest.bn_eps is None
    whole, part = (load_file(one.path(WEIGHTS)) for one in (open_bundle(Place.of(bundle)), backbone))
    assert part.keys() == {name for name in whole if name.startswith("backbone.")}
    for name, array in part.items():
        wanted = whole[name] + (9e-5 if name.endswith("moving_variance") else 0)
        np.testing.assert_allclose(array, wanted, rtol=0, atol=1e-7)


def test_what_batch_normalization_adds_goes_with_the_weights(tmp_path: Path, weights_file: Path) -> None:
    imported = import_weights(weights_file, MODEL, str(tmp_path / "first"))
    bundle = open_bundle(Place.of(imported.bundle))
    manifest = bundle.manifest.model_copy(update={"bn_eps": 1e-4, "files": {}})
    other = publish_bundle(Place.of(tmp_path / "other"), manifest, {WEIGHTS: bundle.path(WEIGHTS)}).uri
    for name, names in (("own.safetensors", "kubeyolo"), ("theirs.safetensors", "darknet")):
        export_weights(other, tmp_path / name, names)
        again = open_bundle(Place.of(import_weights(tmp_path / name, MODEL, str(tmp_path / f"{names}-again")).bundle))
        assert again.manifest.bn_eps == 1e-4
        assert again.manifest.files[WEIGHTS] == bundle.manifest.files[WEIGHTS]
    # A .weights file has no place for it: darknet adds 1e-5, and finds the rest in the variances.
    export_weights(other, tmp_path / "moved.weights")
    numbers, moved = floats(weights_file), floats(tmp_path / "moved.weights")
    np.testing.assert_array_equal(moved[:96], numbers[:96])
    np.testing.assert_allclose(moved[96:128], numbers[96:128] + 9e-5, rtol=0, atol=1e-7)
    again = open_bundle(Place.of(import_weights(tmp_path / "moved.weights", MODEL, str(tmp_path / "moved")).bundle))
    assert again.manifest.bn_eps is None
    image = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    found = CellRuntime(load_network(again.manifest, again.path(WEIGHTS))).raw(image)
    wanted = CellRuntime(load_network(manifest, bundle.path(WEIGHTS))).raw(image)
    for level, raw in zip(found, wanted, strict=True):
        np.testing.assert_allclose(level, raw, rtol=1e-4)
