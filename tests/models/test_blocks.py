"""Blocks against what they are defined to do."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import nn

from kubeyolo.models.activations import LeakyReLU, Mish, SiLU
from kubeyolo.models.blocks import SPP, SPPF, Conv, Focus, PyramidPool, Upsample, alternating_convs
from kubeyolo.models.initialisation import initialise


def test_silu() -> None:
    x = np.asarray([-30.0, -1.0, 0.0, 2.0, 30.0], np.float32)
    np.testing.assert_allclose(SiLU()(ms.Tensor(x)).asnumpy(), x / (1 + np.exp(-x)), rtol=1e-5, atol=1e-10)


def test_mish_and_its_gradient() -> None:
    # Far out it is x above zero and zero below, and nothing may overflow there.
    x = np.concatenate((np.linspace(-12, 12, 2401), [-90.0, 90.0])).astype(np.float32)
    softplus = np.logaddexp(0, x.astype(np.float64))
    wanted = x * np.tanh(softplus)
    mish = Mish()
    np.testing.assert_allclose(mish(ms.Tensor(x)).asnumpy(), wanted, rtol=1e-5, atol=1e-6)
    slope = np.tanh(softplus) + x * (1 - np.tanh(softplus) ** 2) / (1 + np.exp(-x.astype(np.float64)))
    gradient = ms.grad(lambda a: mish(a).sum())(ms.Tensor(x)).asnumpy()
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=2e-6)


def test_leaky_relu_keeps_a_tenth_below_zero() -> None:
    x, leaky = ms.Tensor(np.asarray([-2.0, -0.5, 1.0, 3.0], np.float32)), LeakyReLU()
    np.testing.assert_allclose(leaky(x).asnumpy(), [-0.2, -0.05, 1.0, 3.0], rtol=1e-6)
    np.testing.assert_allclose(ms.grad(lambda a: leaky(a).sum())(x).asnumpy(), [0.1, 0.1, 1.0, 1.0], rtol=1e-6)


def test_pyramid_pool_has_the_largest_pool_first_and_the_input_last() -> None:
    x = np.zeros((1, 1, 15, 15), np.float32)
    x[0, 0, 7, 7] = 1
    y = PyramidPool()(ms.Tensor(x)).asnumpy()
    assert y.sum((0, 2, 3)).tolist() == [169, 81, 25, 1]


def test_alternating_convolutions() -> None:
    shapes = [cell.conv.weight.shape for cell in alternating_convs(24, 8, 5, 1e-5)]
    assert shapes == [(8, 24, 1, 1), (16, 8, 3, 3), (8, 16, 1, 1), (16, 8, 3, 3), (8, 16, 1, 1)]


def test_upsample_repeats_each_pixel_and_sums_gradients() -> None:
    x = np.random.default_rng(0).random((2, 3, 4, 5), np.float32)
    np.testing.assert_array_equal(Upsample()(ms.Tensor(x)).asnumpy(), x.repeat(2, 2).repeat(2, 3))
    weights = np.random.default_rng(1).random((2, 3, 8, 10), np.float32)
    up = Upsample()
    gradient = ms.grad(lambda a: (up(a) * ms.Tensor(weights)).sum())(ms.Tensor(x)).asnumpy()
    np.testing.assert_allclose(gradient, weights.reshape(2, 3, 4, 2, 5, 2).sum((3, 5)), rtol=1e-6)


def test_focus_keeps_every_pixel_in_the_published_order() -> None:
    focus = Focus(1, 4)
    focus.conv = nn.Identity()
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    y = focus(ms.Tensor(x)).asnumpy()
    assert y.shape == (1, 4, 2, 2)
    assert y[0, :, 0, 0].tolist() == [0, 4, 1, 5]


def test_strided_convolution_pads_all_sides() -> None:
    conv = nn.SequentialCell([Conv(1, 1, 3, 2)])[0].conv
    conv.weight.set_data(ms.Tensor(np.ones((1, 1, 3, 3), np.float32)))
    y = conv(ms.Tensor(np.ones((1, 1, 4, 4), np.float32))).asnumpy()
    assert y[0, 0].tolist() == [[4, 6], [6, 9]]


def test_chained_pools_equal_the_pyramid() -> None:
    spp, sppf = SPP(8, 8), SPPF(8, 8)
    for block in (spp, sppf):
        initialise(block, 0)
        block.set_train(False)
    sppf.cv1.conv.weight.set_data(spp.cv1.conv.weight)
    sppf.cv2.conv.weight.set_data(spp.cv2.conv.weight)
    x = ms.Tensor(np.random.default_rng(0).standard_normal((1, 8, 9, 7)).astype(np.float32))
    np.testing.assert_allclose(spp(x).asnumpy(), sppf(x).asnumpy(), rtol=1e-6)


def test_running_averages_take_three_hundredths_of_a_new_batch() -> None:
    conv = Conv(1, 1, 1)
    conv.conv.weight.set_data(ms.Tensor(np.ones((1, 1, 1, 1), np.float32)))
    conv.set_train(True)
    x = np.random.default_rng(0).standard_normal((4, 1, 8, 8)).astype(np.float32) + 5
    conv(ms.Tensor(x))
    np.testing.assert_allclose(conv.bn.moving_mean.asnumpy(), [0.03 * x.mean()], rtol=1e-4)
    np.testing.assert_allclose(conv.bn.moving_variance.asnumpy(), [0.97 + 0.03 * x.var(ddof=1)], rtol=1e-4)
