"""Rounding, its gradients, ranges and folding, operator by operator, and the conversion of whole networks."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from kubeyolo.errors import InputError
from kubeyolo.models.blocks import Conv
from kubeyolo.models.fake_quantization import (
    Observer,
    QuantizedConv,
    QuantizedSiLU,
    Roundings,
    RoundValues,
    RoundWeights,
    fake_quantize,
)
from kubeyolo.models.registry import build_model


def tensor(*values: float) -> Tensor:
    return Tensor(np.array(values, np.float32))


def gradients(cell: nn.Cell, *inputs: Tensor) -> np.ndarray:
    return ms.grad(lambda *values: cell(*values).sum())(*inputs).asnumpy()


def random_block(act: str = "silu") -> Conv:
    """Return a block with weights and statistics that are far from those of a fresh block."""
    rng = np.random.default_rng(0)
    block = Conv(3, 8, 3, act=act)
    block.conv.weight.set_data(Tensor(rng.standard_normal((8, 3, 3, 3)).astype(np.float32)))
    for parameter, low, high in (
        (block.bn.gamma, -1.5, 1.5),
        (block.bn.beta, -1.0, 1.0),
        (block.bn.moving_mean, -2.0, 2.0),
        (block.bn.moving_variance, 0.05, 20.0),
    ):
        parameter.set_data(Tensor(rng.uniform(low, high, 8).astype(np.float32)))
    block.set_train(False)
    return block


def test_values_are_rounded_to_256_levels_that_include_zero() -> None:
    rounded = RoundValues()
    value_range = tensor(-1.0, 4.1)  # the scale is 0.02, and -1 is level -50
    x = tensor(-9.0, -1.0, -0.011, -0.009, 0.0, 0.009, 0.031, 4.1, 7.0)
    expected = [-1.0, -1.0, -0.02, 0.0, 0.0, 0.0, 0.04, 4.1, 4.1]
    np.testing.assert_allclose(rounded(x, value_range).asnumpy(), expected, atol=1e-6)
    many = Tensor(np.linspace(-2, 5, 10_000, dtype=np.float32))
    assert len(np.unique(rounded(many, value_range).asnumpy())) == 256


def test_the_gradient_is_one_inside_the_range_and_zero_outside() -> None:
    x = tensor(-1.2, -0.9, -0.013, 0.0, 1.7, 4.0, 4.2)
    assert gradients(RoundValues(), x, tensor(-1.0, 4.1)).tolist() == [0, 1, 1, 1, 1, 1, 0]


def test_weights_have_a_symmetric_scale_for_each_channel_and_their_gradient_passes() -> None:
    weight = np.zeros((3, 2, 1, 1), np.float32)
    weight[0, :, 0, 0] = -1.27, 0.004
    weight[1, :, 0, 0] = 12.7, 0.14
    rounded = RoundWeights()(Tensor(weight)).asnumpy()[:, :, 0, 0]
    # The scales are 0.01 and 0.1; a channel of zeros stays zero.
    np.testing.assert_allclose(rounded, [[-1.27, 0.0], [12.7, 0.1], [0.0, 0.0]], atol=1e-6)
    assert (gradients(RoundWeights(), Tensor(weight)) == 1).all()


def test_the_range_is_that_of_the_first_batch_then_a_moving_average_and_fixed_in_evaluation() -> None:
    observer = Observer("block.after", Roundings())
    assert observer.range.name == "block.after.range" and not observer.range.requires_grad
    observer.set_train(True)
    observer(tensor(-1.0, 0.5, 3.0))
    np.testing.assert_allclose(observer.range.asnumpy(), [-1.0, 3.0], atol=1e-6)
    # Zero is in every range, though all values of this batch are above it.
    observer(tensor(1.0, 5.0))
    np.testing.assert_allclose(observer.range.asnumpy(), [-0.99, 3.02], atol=1e-6)
    observer.set_train(False)
    cut = observer(tensor(-7.0, 9.0)).asnumpy()
    np.testing.assert_allclose(observer.range.asnumpy(), [-0.99, 3.02], atol=1e-6)
    np.testing.assert_allclose(cut, [-0.99, 3.02], atol=0.02)


@pytest.mark.parametrize("act", ["silu", "relu", "leaky"])
def test_the_folded_convolution_equals_convolution_and_normalization_in_evaluation_mode(act: str) -> None:
    block = random_block(act)
    x = Tensor(np.random.default_rng(1).standard_normal((2, 3, 9, 7)).astype(np.float32))
    expected = block(x).asnumpy()
    quantized = QuantizedConv(block, "block", Roundings())
    weight, bias = quantized.folded()
    folded = block.act(quantized.add_bias(block.conv.conv2d(x, weight), bias)).asnumpy()
    np.testing.assert_allclose(folded, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    # ReLU cuts at zero by itself: nothing is rounded before it.
    assert (quantized.before is None) == (act == "relu")


def test_a_quantized_block_stays_close_to_its_float_block_and_trains_scale_and_shift() -> None:
    block = random_block()
    x = Tensor(np.random.default_rng(1).standard_normal((2, 3, 16, 16)).astype(np.float32))
    expected = block(x).asnumpy()
    statistics = [block.bn.moving_mean.asnumpy(), block.bn.moving_variance.asnumpy()]
    quantized = QuantizedConv(block, "block", Roundings(), rounds_input=True)
    quantized.set_train(True)
    quantized(x)
    assert np.abs(quantized(x).asnumpy() - expected).max() < 0.04 * np.abs(expected).max()
    trained = ms.ParameterTuple(quantized.trainable_params())
    assert {each.name.rpartition(".")[2] for each in trained} == {"weight", "gamma", "beta"}
    found = ms.grad(lambda values: ops.square(quantized(values)).sum(), None, trained)(x)
    assert all(np.abs(each.asnumpy()).max() > 0 for each in found)
    after = [block.bn.moving_mean.asnumpy(), block.bn.moving_variance.asnumpy()]
    assert all((old == new).all() for old, new in zip(statistics, after, strict=True))


def test_the_sigmoid_of_silu_is_rounded_to_multiples_of_a_255th() -> None:
    x = tensor(-3.0, 0.1, 2.0)
    sigmoid = np.rint(255 / (1 + np.exp(-x.asnumpy()))) / 255
    np.testing.assert_allclose(QuantizedSiLU(Roundings())(x).asnumpy(), x.asnumpy() * sigmoid, atol=1e-6)


def test_a_converted_network_keeps_the_names_of_its_parameters() -> None:
    network = build_model("yolov5n-r7", 3)
    before = {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}
    layers = fake_quantize(network)
    after = {parameter.name: parameter for parameter in network.get_parameters()}
    assert layers.convolutions == 60 and layers.outputs == 3
    assert all((after[name].asnumpy() == array).all() for name, array in before.items())
    ranges = after.keys() - before.keys()
    assert layers.ranges == len(ranges)
    # 57 blocks with two ranges each; seven sums; the concatenations of eight C3 blocks and four of the neck, which two
    # convolutions read.
    assert len(ranges) == 2 * 57 + 7 + 8 + 2 * 4
    names = ("stem.before", "stage3.m.1.sum", "stage3.cv3.input", "pool.cv2.after")
    assert {f"backbone.{name}.range" for name in names} <= ranges
    assert {"neck.top4.cv1.input.range", "neck.top4.cv2.input.range"} <= ranges
    assert not any(name.startswith("head.") for name in ranges)


def test_other_families_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="'yolov4-tiny': quantization-aware training needs yolov3 or yolov5"):
        fake_quantize(build_model("yolov4-tiny", 1))
