"""Fresh weights: what they are drawn from, and that they depend on nothing but name, classes and seed."""

from __future__ import annotations

import math
from typing import Any

import mindspore as ms
import numpy as np
import pytest

from kubeyolo.models.initialisation import initialise
from kubeyolo.models.named_facts import model_facts
from kubeyolo.models.registry import build_model
from tests import golden

LARGE = 50_000_000  # parameters: fresh weights of larger networks are not drawn by `make ci`


def cases() -> list[Any]:
    parameters = golden.case_parameters(golden.array_files("init"), "init")
    return [
        pytest.param(case.id, id=case.id, marks=pytest.mark.large) if is_large(case.id) else case for case in parameters
    ]


def is_large(case: str) -> bool:
    name = golden.registered_name(case)
    return bool(name) and model_facts(name).parameters > LARGE


@pytest.mark.parametrize("case", cases())
def test_initialisation_golden(case: str) -> None:
    assert case, f"{golden.golden_folder()} holds no initialisation case"
    model = golden.model_of(case)
    meta, arrays = golden.read_json("init", f"{case}.json"), golden.read_arrays("init", f"{case}.npz")
    for key, about in meta["nc"].items():
        network = build_model(model, int(key.removeprefix("nc")))
        fresh = [convolution.bias.asnumpy().copy() for convolution in network.head.m]
        initialise(network, 0)
        for level, convolution in enumerate(network.head.m):
            drawn, delta = convolution.bias.asnumpy(), arrays[f"{key}_delta_{level}"]
            np.testing.assert_allclose((fresh[level] - drawn).reshape(delta.shape), delta, rtol=0, atol=1e-5)
            bound = about["levels"][level]["default_uniform_bound"]
            assert 0.9 * bound < np.abs(drawn).max() <= bound or drawn.size < 30
            assert convolution.weight.shape[1] == about["levels"][level]["fan_in"]
        first = first_convolution(network).weight.asnumpy()
        wanted = about["first_conv_weight"]
        assert list(first.shape) == wanted["shape"]
        assert np.abs(first).max() <= wanted["kaiming_uniform_a_sqrt5_bound"]
        assert first.std() == pytest.approx(wanted["kaiming_uniform_a_sqrt5_bound"] / math.sqrt(3), rel=0.03)
        norms = [cell for _, cell in network.cells_and_names() if isinstance(cell, ms.nn.BatchNorm2d)]
        assert len(norms) == about["bn"]["count"]
        assert {norm.eps for norm in norms} == set(about["bn"]["eps"])
        for norm in norms:
            assert (norm.gamma.asnumpy() == 1).all() and not norm.beta.asnumpy().any()
            assert not norm.moving_mean.asnumpy().any()


def first_convolution(network: ms.nn.Cell) -> ms.nn.Conv2d:
    return next(cell for _, cell in network.cells_and_names() if isinstance(cell, ms.nn.Conv2d))


def test_weights_depend_on_the_seed_alone() -> None:
    first = weights(build_model("yolov5n-r7", 3, seed=5))
    ms.set_seed(99)
    np.random.default_rng(1).random(7)
    again, other = weights(build_model("yolov5n-r7", 3, seed=5)), weights(build_model("yolov5n-r7", 3, seed=6))
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
        if values.ndim == 4:
            assert np.abs(values - other[name]).max() > 0
    # Two convolutions of one shape start different.
    assert np.abs(first["backbone.stage2.cv1.conv.weight"] - first["backbone.stage2.cv2.conv.weight"]).max() > 0


def weights(network: ms.nn.Cell) -> dict[str, np.ndarray]:
    return {parameter.name: parameter.asnumpy().copy() for parameter in network.get_parameters()}
