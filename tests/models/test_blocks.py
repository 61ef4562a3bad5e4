"""Blocks against what they are defined to do."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import nn

from kubeyolo.models.blocks import SPP, SPPF, Conv, Focus, SiLU, Upsample
from kubeyolo.models.initialisation import initialise


def test_silu() -> None:
    x = np.asarray([-30.0, -1.0, 0.0, 2.0, 30.0], np.float32)
    np.testing.assert_allclose(SiLU()(ms.Tensor(x)).asnumpy(), x / (1 + np.exp(-x)), rtol=1e-5, atol=1e-10)


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
