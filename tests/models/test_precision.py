"""Half precision changes how layers compute, and neither parameters nor statistics."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from kubeyolo.models.activations import SiLU
from kubeyolo.models.blocks import Bottleneck, Conv
from kubeyolo.models.precision import Cast, HalfConvolution, use_half_precision
from kubeyolo.models.registry import build_model
from tests.training.rounding import Rounding

MODELS = ("yolov5n-r7", "yolov4-tiny")


def layers() -> nn.Cell:
    network = nn.SequentialCell(Conv(3, 8, 3), Bottleneck(8, True, act="mish"), nn.Conv2d(8, 2, 1, has_bias=True))
    rng = np.random.default_rng(0)
    for parameter in network.trainable_params():
        parameter.set_data(Tensor(rng.uniform(0.1, 0.5, parameter.shape).astype(np.float32)))
    return network


@pytest.mark.parametrize("model", MODELS)
def test_all_layers_of_a_detector_compute_in_half_precision(model: str) -> None:
    network = build_model(model, 3)
    before = [(parameter.name, parameter) for parameter in network.get_parameters()]
    kinds = [type(cell).__name__ for _, cell in network.cells_and_names()]
    precisions = use_half_precision(network, Cast("float16"))
    assert precisions.single == {}
    assert precisions.half["Conv2d"] == kinds.count("Conv2d") > 20
    assert precisions.half["BatchNorm2d"] == kinds.count("BatchNorm2d") > 15
    after = list(network.get_parameters())
    assert [(parameter.name, id(parameter)) for parameter in after] == [(name, id(one)) for name, one in before]
    assert {str(parameter.dtype) for parameter in after} == {"Float32"}
    parents = [cell for _, cell in network.cells_and_names() if not isinstance(cell, HalfConvolution)]
    assert not any(type(child) is nn.Conv2d for parent in parents for child in parent.cells())


def test_values_are_rounded_and_the_result_is_float32() -> None:
    images = np.random.default_rng(1).random((2, 3, 16, 16), np.float32)
    full = layers()(Tensor(images)).asnumpy()
    network = layers()
    use_half_precision(network, Cast("float16"))
    half = network(Tensor(images)).asnumpy()
    assert half.dtype == np.float32
    error = np.abs(half - full).max() / np.abs(full).max()
    assert 1e-6 < error < 4e-3


def test_statistics_of_a_batch_are_computed_in_float32() -> None:
    """In float16 the sum of these squares would be infinite, and the variance would be lost next to the mean."""

    network = nn.SequentialCell(nn.Conv2d(1, 1, 1, weight_init="ones"), nn.BatchNorm2d(1, momentum=0.0))
    use_half_precision(network, Cast("float16"))
    network.set_train()
    values = (600 + np.random.default_rng(2).integers(-2, 3, (2, 1, 32, 32))).astype(np.float32)
    network(Tensor(values))
    statistics = {parameter.name: float(parameter.asnumpy()[0]) for parameter in network.get_parameters()}
    assert statistics["1.moving_mean"] == pytest.approx(values.mean(), rel=1e-6)
    assert statistics["1.moving_variance"] == pytest.approx(values.var(ddof=1), rel=1e-3)


def test_a_layer_of_an_unknown_kind_stays_float32() -> None:
    network = nn.SequentialCell(nn.Conv2d(3, 4, 1, has_bias=True), nn.PReLU(4), nn.Conv2d(4, 2, 1, has_bias=True))
    precisions = use_half_precision(network, Cast("float16"))
    assert precisions.words("float16") == (
        "computing in float16: 2 Conv2d; in float32: 1 PReLU; statistics, loss and weights are float32"
    )
    assert network(Tensor(np.ones((1, 3, 4, 4), np.float32))).shape == (1, 2, 4, 4)


def test_rounding_leaves_values_and_gradients_of_bfloat16() -> None:
    """The cast for tests where bfloat16 has no kernels: the lower half of each float32 number is zero."""

    network = nn.SequentialCell(SiLU())
    use_half_precision(network, Rounding())
    x = Tensor(np.random.default_rng(3).standard_normal(1000).astype(np.float32))
    values, gradients = ops.value_and_grad(lambda each: network(each), 0)(x)
    for array in (values.asnumpy(), gradients.asnumpy()):
        assert not (array.view(np.uint32) & 0xFFFF).any()
        assert (x.asnumpy().view(np.uint32) & 0xFFFF).any()
    np.testing.assert_allclose(values.asnumpy(), x.asnumpy() / (1 + np.exp(-x.asnumpy())), rtol=1.3e-2)
