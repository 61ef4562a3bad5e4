"""Backbones of the MindSpore model zoo: names, and images that are not normalized."""

from __future__ import annotations

import importlib
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from kubeyolo.bundle import WEIGHTS, open_bundle
from kubeyolo.errors import InputError
from kubeyolo.models.named_facts import model_facts
from kubeyolo.models.registry import build_backbone
from kubeyolo.storage.place import Place
from kubeyolo.weights.importing import import_weights
from kubeyolo.weights.model_zoo import from_zoo, take_in_normalization
from kubeyolo.weights.network_parameters import network_parameters

NAMES = {
    "yolov3": {
        "feature_map.backbone.conv0.0.weight": "backbone.stem.conv.weight",
        "network.backbone.conv5.1.gamma": "backbone.down.4.bn.gamma",
        "backbone.layer3.7.conv2.1.moving_mean": "backbone.stage.2.7.cv2.bn.moving_mean",
        "feature_map.backblock0.conv6.bias": "feature_map.backblock0.conv6.bias",
    },
    "yolov4": {
        "feature_map.backbone.conv3.0.weight": "backbone.stage.0.m.0.cv1.conv.weight",
        "feature_map.backbone.conv6.1.beta": "backbone.stage.0.route.bn.beta",
        "backbone.conv8.0.weight": "backbone.stage.1.down.conv.weight",
        "backbone.layer5.3.conv1.1.gamma": "backbone.stage.4.m.3.cv1.bn.gamma",
        "backbone.conv27.1.moving_variance": "backbone.stage.4.fuse.bn.moving_variance",
    },
    "yolov5s": {
        "feature_map.backbone.focus.conv.conv.weight": "backbone.stem.conv.conv.weight",
        "yolo_network.feature_map.backbone.conv4.bn.beta": "backbone.down5.bn.beta",
        "feature_map.backbone.CSP2.m.1.conv2.conv.weight": "backbone.stage3.m.1.cv2.conv.weight",
        "feature_map.backbone.spp.conv1.bn.moving_mean": "backbone.pool.cv1.bn.moving_mean",
        "feature_map.CSP5.conv1.bn.gamma": "feature_map.CSP5.conv1.bn.gamma",
    },
}


@pytest.mark.parametrize("model", NAMES)
def test_names(model: str) -> None:
    for theirs, ours in NAMES[model].items():
        assert from_zoo(theirs, model_facts(model)) == ours


def cells_of_yolov3() -> list[str]:
    depths = (1, 2, 8, 8, 4)
    residuals = [f"layer{stage + 1}.{number}" for stage, depth in enumerate(depths) for number in range(depth)]
    return [f"conv{number}" for number in range(6)] + [f"{one}.conv{half}" for one in residuals for half in (1, 2)]


def cells_of_yolov4() -> list[str]:
    depths = {2: 2, 3: 8, 4: 8, 5: 4}
    residuals = [f"layer{stage}.{number}" for stage, depth in depths.items() for number in range(depth)]
    return [f"conv{number}" for number in range(28)] + [f"{one}.conv{half}" for one in residuals for half in (1, 2)]


@pytest.mark.parametrize(("model", "cells"), [("yolov3", cells_of_yolov3()), ("yolov4", cells_of_yolov4())])
def test_every_parameter_of_a_backbone_has_its_place(model: str, cells: list[str]) -> None:
    facts, leaves = model_facts(model), ("0.weight", "1.gamma", "1.beta", "1.moving_mean", "1.moving_variance")
    theirs = [f"backbone.{cell}.{leaf}" for cell in cells for leaf in leaves]
    found = {from_zoo(name, facts) for name in theirs}
    assert len(found) == len(theirs)
    backbone = importlib.import_module(facts.network).build_detector(facts, 1).backbone
    assert found == {parameter.name for parameter in backbone.get_parameters()}


def zoo_name_of_yolov5(ours: str) -> str:
    """Return the name that the zoo gives a parameter of the backbone."""
    cell, _, rest = ours.removeprefix("backbone.").partition(".")
    cells = {"stem": "focus", "pool": "spp"}
    cells |= {f"down{stage + 1}": f"conv{stage}" for stage in range(1, 5)}
    cells |= {f"stage{stage + 1}": f"CSP{stage}" for stage in range(1, 5)}
    return f"feature_map.backbone.{cells[cell]}.{rest.replace('cv', 'conv')}"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    shapes = network_parameters("yolov5s").backbone().shapes
    arrays = {name: generator.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}
    saved = [{"name": zoo_name_of_yolov5(name), "data": ms.Tensor(array)} for name, array in arrays.items()]
    saved += [{"name": "feature_map.back_block1.conv.bias", "data": ms.Tensor(np.zeros(24, np.float32))}]
    saved += [{"name": "global_step", "data": ms.Tensor(np.zeros(1, np.int32))}]
    path = tmp_path_factory.mktemp("zoo") / "yolov5s.ckpt"
    ms.save_checkpoint(saved, str(path))
    return path, arrays


def test_the_backbone_of_a_detector_is_taken(tmp_path: Path, checkpoint: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, arrays = checkpoint
    imported = import_weights(path, "yolov5s", str(tmp_path / "bundle"), backbone=True)
    assert (imported.kind, imported.layout, imported.unused) == ("backbone", "mindspore model zoo", 1)
    from safetensors.numpy import load_file

    found = load_file(open_bundle(Place.of(imported.bundle)).path(WEIGHTS))
    assert found.keys() == arrays.keys()
    changed = {name for name in arrays if not np.array_equal(found[name], arrays[name])}
    assert changed == {"backbone.stem.conv.conv.weight", "backbone.stem.conv.bn.moving_mean"}


def test_whole_detectors_are_refused(tmp_path: Path, checkpoint: tuple[Path, dict[str, np.ndarray]]) -> None:
    with pytest.raises(InputError, match="MindSpore model zoo, whose yolov5s differs from ours.*--backbone"):
        import_weights(checkpoint[0], "yolov5s", str(tmp_path / "bundle"))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.usefixtures("pynative")
def test_images_as_they_are_give_what_normalized_ones_gave() -> None:
    stem = build_backbone("yolov5s").stem
    stem.set_train(False)
    generator = np.random.default_rng(0)
    prefix = "backbone.stem."
    arrays = {
        prefix + name: generator.uniform(0.5, 1.5, parameter.shape).astype(np.float32)
        for name, parameter in stem.parameters_and_names()
    }
    image = generator.random((1, 3, 16, 16), np.float32)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalized = ((image - mean[:, None, None]) / deviation[:, None, None]).astype(np.float32)
    from kubeyolo.weights.fit import NamedArray

    named = {name: NamedArray(name, array) for name, array in arrays.items()}
    outputs = []
    for values, of in ((named, normalized), (take_in_normalization(named), image)):
        for name, parameter in stem.parameters_and_names():
            parameter.set_data(ms.Tensor(values[prefix + name].array))
        outputs.append(stem(ms.Tensor(of)).asnumpy()[:, :, 1:-1, 1:-1])
    assert np.abs(outputs[0]).max() > 1
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-4, atol=1e-4)
