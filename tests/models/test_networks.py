"""Every registered network through the same checks."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest

from kubeyolo.models.named_facts import model_facts, model_names
from kubeyolo.models.registry import build_backbone, build_model

LARGE = 10_000_000  # parameters


def every_model() -> list[Any]:
    return [
        pytest.param(name, marks=[pytest.mark.large] if model_facts(name).parameters > LARGE else [])
        for name in model_names()
    ]


@pytest.mark.parametrize("name", every_model())
def test_network(name: str, tmp_path: Path) -> None:
    facts = model_facts(name)
    network = build_model(name, 80)
    assert sum(parameter.size for parameter in network.trainable_params()) == facts.parameters

    network.set_train(False)
    step = facts.strides[-1]
    images = np.random.default_rng(0).random((2, 3, step, step), np.float32)
    check_shapes(network(ms.Tensor(images)), facts, 2, (step, step), 80)
    wide = network(ms.Tensor(np.zeros((1, 3, 2 * step, step), np.float32)))
    check_shapes(wide, facts, 1, (2 * step, step), 80)

    ms.save_checkpoint(network, str(tmp_path / "weights"), format="safetensors")
    other = build_model(name, 80, seed=1)
    other.set_train(False)
    missing, unexpected = ms.load_param_into_net(
        other, ms.load_checkpoint(str(tmp_path / "weights.safetensors"), format="safetensors"), strict_load=True
    )
    assert not missing and not unexpected
    for raw, same in zip(network(ms.Tensor(images)), other(ms.Tensor(images)), strict=True):
        np.testing.assert_array_equal(raw.asnumpy(), same.asnumpy())


# As their authors publish them for one image of native size, in 1e9: multiplications and additions, counted twice.
PUBLISHED_OPERATIONS = {
    **{"yolov5n-r7": 4.5, "yolov5s-r7": 16.5, "yolov5m-r7": 49.0, "yolov5l-r7": 109.1, "yolov5x-r7": 205.7},
    **{"yolov5s": 17.0, "yolov5m": 51.3, "yolov5l": 115.4, "yolov5x": 218.8},
    **{"yolov3": 65.86, "yolov4": 128.46, "yolov4-tiny": 6.91},
}


@pytest.mark.parametrize("name", model_names())
def test_parameters_multiply_adds_activations_and_shapes_are_those_of_the_facts(name: str) -> None:
    # Without fresh weights, which take most of the time.
    facts = model_facts(name)
    network = importlib.import_module(facts.network).build_detector(facts, 80)
    assert sum(parameter.size for parameter in network.trainable_params()) == facts.parameters
    counts: list[int] = []
    written: list[int] = []
    for _, cell in network.cells_and_names():
        if isinstance(cell, ms.nn.Conv2d):
            cell.register_forward_hook(
                lambda cell, _, output: counts.append(cell.weight.size * math.prod(output.shape[2:]))
            )
            cell.register_forward_hook(lambda cell, _, output: written.append(output.size))
    step = facts.strides[-1]
    network.set_train(False)
    raws = network(ms.Tensor(np.zeros((1, 3, step, 2 * step), np.float32)))
    check_shapes(raws, facts, 1, (step, 2 * step), 80)
    # The image's area in units of what was run: all maps grow with it.
    assert sum(counts) * facts.image_size**2 == facts.multiply_adds * 2 * step**2
    assert sum(written) * facts.image_size**2 == facts.activations * 2 * step**2
    if name in PUBLISHED_OPERATIONS:
        assert 2e-9 * facts.multiply_adds == pytest.approx(PUBLISHED_OPERATIONS[name], rel=0.01)


def test_a_backbone_of_yolov3_quant_cuts_below_zero() -> None:
    for name, kept in (("yolov3", True), ("yolov3-quant", False)):
        stem = importlib.import_module("kubeyolo.models.yolov3").build_backbone(model_facts(name)).stem
        assert (stem.act(ms.Tensor(np.asarray([-1.0], np.float32))).asnumpy()[0] < 0) == kept


@pytest.mark.parametrize("name", every_model())
def test_one_class(name: str) -> None:
    facts = model_facts(name)
    network = build_model(name, 1)
    step = facts.strides[-1]
    check_shapes(network(ms.Tensor(np.zeros((1, 3, step, step), np.float32))), facts, 1, (step, step), 1)
    head = facts.anchors_per_level * 79 * sum(weight.shape[1] + 1 for weight in head_weights(network))
    assert sum(parameter.size for parameter in network.trainable_params()) == facts.parameters - head


@pytest.mark.parametrize("name", every_model())
def test_backbone_alone_is_the_backbone_of_the_detector(name: str) -> None:
    facts = model_facts(name)
    backbone = build_backbone(name, seed=3)
    step = facts.strides[-1]
    features = backbone(ms.Tensor(np.zeros((1, 3, step, step), np.float32)))
    for feature, channels, stride in zip(features, backbone.out_channels, facts.strides, strict=True):
        assert feature.shape == (1, channels, step // stride, step // stride)
    whole = {parameter.name: parameter for parameter in build_model(name, 2, seed=3).backbone.get_parameters()}
    for parameter in backbone.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), whole[f"backbone.{parameter.name}"].asnumpy())


@pytest.mark.parametrize("name", model_names())
def test_parameters_of_a_backbone_alone_have_the_names_they_have_in_the_detector(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubeyolo.models.initialisation.initialise", lambda *_, **__: None)
    facts = model_facts(name)
    alone = [f"backbone.{parameter.name}" for parameter in build_backbone(name).get_parameters()]
    whole = importlib.import_module(facts.network).build_detector(facts, 1).get_parameters()
    assert alone == [parameter.name for parameter in whole if parameter.name.startswith("backbone.")]


def check_shapes(raws: Any, facts: Any, batch: int, size: tuple[int, int], classes: int) -> None:
    wanted = [
        (batch, facts.anchors_per_level, size[0] // stride, size[1] // stride, 5 + classes) for stride in facts.strides
    ]
    assert [raw.shape for raw in raws] == wanted


def head_weights(network: Any) -> list[Any]:
    return [convolution.weight for convolution in network.head.m]
