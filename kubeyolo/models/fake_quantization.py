"""Fake quantization: a network that computes in float32 with the roundings of its int8 file, so that it learns them.

A float network is converted; its parameters keep their names. The converted network rounds as its int8 file does:
:mod:`kubeyolo.quantization.trained_ranges` writes the file with the same roundings in the same places.

- the weights of every convolution, batch normalization folded into them: symmetric int8, with a scale for each output
  channel (https://arxiv.org/abs/1712.05877);
- the result of a convolution and of its activation function: asymmetric uint8, a scale for each tensor. ReLU is part of
  the convolution in an int8 file, so nothing is rounded before it; a sigmoid inside SiLU has the range 0 to 1;
- the sum of a residual, and a concatenation of values that have different scales.

The results of the head stay float. Batch normalization uses the statistics of the float network, which stay as they
are; its scale and shift are trained.

Ranges are moving averages of the extremes of batches. They are parameters without gradient: checkpoints and averages
contain them. In evaluation they stay as they are.

Only common operators are used, since MindSpore's operators for fake quantization have no kernel on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from kubeyolo.errors import InputError
from kubeyolo.models.activations import SiLU
from kubeyolo.models.blocks import C3, Bottleneck, Conv
from kubeyolo.models.detector import Detector
from kubeyolo.models.ranges import AFTER, BEFORE, INPUT, RANGE, SUM, can_be_quantized
from kubeyolo.models.yolov3 import YoloV3Neck
from kubeyolo.models.yolov5 import YoloV5Neck

WEIGHT_LEVELS = 127
"""Largest int8 of a weight: -128 is left out, so that zero is in the middle."""

ACTIVATION_LEVELS = 255
"""Largest uint8 of a value."""

OLD_SHARE = 0.99
"""Share of the former range in the moving average."""

SMALLEST_SCALE = 1e-8


class RoundWeights(nn.Cell):
    """Rounds the weights of a convolution to symmetric int8 with a scale for each output channel.

    The scale is the largest magnitude of a channel / 127, so that no weight is outside the range and the gradient of
    every weight is that of its rounded value (straight-through estimator, https://arxiv.org/abs/1308.3432).
    """

    def __init__(self) -> None:
        super().__init__()
        self.abs, self.round, self.divide, self.multiply = ops.Abs(), ops.Round(), ops.RealDiv(), ops.Mul()
        self.largest, self.maximum = ops.ReduceMax(keep_dims=True), ops.Maximum()
        self.levels = Tensor(float(WEIGHT_LEVELS), ms.float32)
        self.smallest = Tensor(SMALLEST_SCALE, ms.float32)

    def construct(self, weight: Tensor) -> Tensor:
        """Map (out, in, k, k) to the nearest values that int8 can represent."""
        largest = self.largest(self.abs(weight), (1, 2, 3))
        scale = self.maximum(self.divide(largest, self.levels), self.smallest)
        return self.multiply(self.round(self.divide(weight, scale)), scale)

    def bprop(self, weight: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        """Pass the gradient on."""
        return (dout,)


class RoundValues(nn.Cell):
    """Rounds values to asymmetric uint8 with one scale; the gradient is 1 inside the range and 0 outside."""

    def __init__(self) -> None:
        super().__init__()
        self.round, self.divide, self.multiply = ops.Round(), ops.RealDiv(), ops.Mul()
        self.add, self.subtract, self.minimum, self.maximum = ops.Add(), ops.Sub(), ops.Minimum(), ops.Maximum()
        self.least, self.largest = ops.ReduceMin(keep_dims=True), ops.ReduceMax(keep_dims=True)
        self.equal, self.cast, self.zeros = ops.Equal(), ops.Cast(), ops.ZerosLike()
        self.levels = Tensor([float(ACTIVATION_LEVELS)], ms.float32)
        self.smallest = Tensor([SMALLEST_SCALE], ms.float32)

    def construct(self, x: Tensor, value_range: Tensor) -> Tensor:
        """Map values of any shape to the nearest values that uint8 can represent.

        Args:
            x: Values.
            value_range: (2,) smallest and largest value; zero is between them.
        """
        scale, low, high = self._grid(value_range)
        return self.multiply(self._clipped(self.round(self.divide(x, scale)), low, high), scale)

    def bprop(self, x: Tensor, value_range: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        """Pass on the gradient of values inside the range."""
        scale, low, high = self._grid(value_range)
        levels = self.divide(x, scale)
        inside = self.cast(self.equal(levels, self._clipped(levels, low, high)), ms.float32)
        return self.multiply(dout, inside), self.zeros(value_range)

    def _clipped(self, levels: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return self.minimum(self.maximum(levels, low), high)

    def _grid(self, value_range: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the scale, and the smallest and the largest multiple of it that uint8 represents; each is (1,)."""
        # Primitives, and no indices: a network has hundreds of these graphs, and each index takes long to compile.
        low = self.least(value_range, 0)
        width = self.subtract(self.largest(value_range, 0), low)
        scale = self.maximum(self.divide(width, self.levels), self.smallest)
        first = self.round(self.divide(low, scale))
        return scale, first, self.add(first, self.levels)


class MovingRange(nn.Cell):
    """The moving average of the range of a value; the first batch sets it. Zero is always inside: padding is exact."""

    def __init__(self) -> None:
        super().__init__()
        self.least, self.largest = ops.ReduceMin(), ops.ReduceMax()
        self.minimum, self.maximum, self.multiply, self.add = ops.Minimum(), ops.Maximum(), ops.Mul(), ops.Add()
        self.subtract, self.equal, self.cast = ops.Sub(), ops.Equal(), ops.Cast()
        self.stack = ops.Stack(0)
        self.zero = Tensor(0.0, ms.float32)
        self.old_share = Tensor(OLD_SHARE, ms.float32)

    def construct(self, values: Tensor, value_range: Tensor) -> Tensor:
        """Return the range (2,) after a batch of values of any shape."""
        low, high = self.minimum(self.least(values), self.zero), self.maximum(self.largest(values), self.zero)
        extremes = self.stack((low, high))
        is_new = self.cast(self.equal(self.least(value_range), self.largest(value_range)), ms.float32)
        old = self.subtract(self.old_share, self.multiply(self.old_share, is_new))
        return self.add(extremes, self.multiply(self.subtract(value_range, extremes), old))


class Roundings:
    """The cells without parameters that all layers of a network share: each is compiled once.

    With cells of their own, the 137 ranges of yolov5n take seven times as long to compile as the float network.
    """

    def __init__(self) -> None:
        self.weights = RoundWeights()
        self.values = RoundValues()
        self.moving = MovingRange()


class Observer(nn.Cell):
    """Rounds values with a range that follows their extremes while the network is trained.

    Args:
        name: Name of the rounded value; the range is the parameter ``<name>.range``.
        roundings: Cells that layers share.
    """

    def __init__(self, name: str, roundings: Roundings) -> None:
        super().__init__(auto_prefix=False)
        self.range = Parameter(Tensor(np.zeros(2, np.float32)), name=f"{name}.{RANGE}", requires_grad=False)
        self.round, self.moving = roundings.values, roundings.moving
        self.assign, self.depend, self.stop = ops.Assign(), ops.Depend(), ops.StopGradient()

    def construct(self, x: Tensor) -> Tensor:
        """Round values of any shape."""
        if self.training:
            value_range = self.moving(self.stop(x), self.range)
            return self.round(self.depend(x, self.assign(self.range, value_range)), value_range)
        return self.round(x, self.range)


class QuantizedSiLU(nn.Cell):
    """SiLU whose sigmoid is rounded to multiples of 1/255.

    Args:
        roundings: Cells that layers share.
    """

    def __init__(self, roundings: Roundings) -> None:
        super().__init__()
        self.sigmoid, self.multiply = ops.Sigmoid(), ops.Mul()
        self.round = roundings.values
        self.unit = Tensor(np.array([0.0, 1.0], np.float32))

    def construct(self, x: Tensor) -> Tensor:
        """Map each element."""
        return self.multiply(x, self.round(self.sigmoid(x), self.unit))


class QuantizedConv(nn.Cell):
    """A convolution with folded batch normalization and activation, all rounded as in an int8 file.

    Args:
        block: The float block, whose parameters are used.
        name: Name of the block.
        roundings: Cells that layers share.
        rounds_input: Whether the input is a concatenation of values with different scales, which is rounded first.
    """

    def __init__(self, block: Conv, name: str, roundings: Roundings, rounds_input: bool = False) -> None:
        super().__init__(auto_prefix=False)
        self.block = block
        # It keeps the statistics of the float network: see the docstring of the module.
        block.bn.use_batch_statistics = False
        self.eps = Tensor(block.bn.eps, ms.float32)
        self.round_weights = roundings.weights
        self.add_bias, self.add, self.subtract = ops.BiasAdd(), ops.Add(), ops.Sub()
        self.multiply, self.divide, self.root, self.reshape = ops.Mul(), ops.RealDiv(), ops.Sqrt(), ops.Reshape()
        self.before = None if isinstance(block.act, nn.ReLU) else Observer(f"{name}.{BEFORE}", roundings)
        self.act = QuantizedSiLU(roundings) if isinstance(block.act, SiLU) else block.act
        self.after = Observer(f"{name}.{AFTER}", roundings)
        self.input = Observer(f"{name}.{INPUT}", roundings) if rounds_input else None

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H / stride, W / stride)."""
        if self.input is not None:
            x = self.input(x)
        weight, bias = self.folded()
        y = self.add_bias(self.block.conv.conv2d(x, self.round_weights(weight)), bias)
        if self.before is not None:
            y = self.before(y)
        return self.after(self.act(y))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weights (out, in, k, k) and bias (out,) of the convolution with folded batch normalization."""
        norm = self.block.bn
        scale = self.divide(norm.gamma, self.root(self.add(norm.moving_variance, self.eps)))
        weight = self.multiply(self.block.conv.weight, self.reshape(scale, (-1, 1, 1, 1)))
        return weight, self.subtract(norm.beta, self.multiply(norm.moving_mean, scale))


class QuantizedOutput(nn.Cell):
    """A convolution of the head, with rounded weights and float results.

    Args:
        layer: The float convolution, with a bias.
        roundings: Cells that layers share.
    """

    def __init__(self, layer: nn.Cell, roundings: Roundings) -> None:
        super().__init__(auto_prefix=False)
        self.layer = layer
        self.round_weights = roundings.weights

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H, W)."""
        return self.layer.bias_add(self.layer.conv2d(x, self.round_weights(self.layer.weight)), self.layer.bias)


class QuantizedBottleneck(nn.Cell):
    """A bottleneck whose sum is rounded.

    Args:
        block: The bottleneck, which adds its input.
        name: Name of the bottleneck.
        roundings: Cells that layers share.
    """

    def __init__(self, block: Bottleneck, name: str, roundings: Roundings) -> None:
        super().__init__(auto_prefix=False)
        self.block = block
        self.sum = Observer(f"{name}.{SUM}", roundings)

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        return self.sum(self.block(x))


@dataclass(frozen=True)
class QuantizedLayers:
    """What a network rounds: the number of its convolutions, of the convolutions in the head, and of ranges."""

    convolutions: int
    outputs: int
    ranges: int

    def words(self) -> str:
        """Return the numbers as a line for the log."""
        return (
            f"quantization-aware training: {self.convolutions} convolutions with int8 weights and folded batch "
            f"normalization, {self.ranges} ranges of uint8 values; the {self.outputs} outputs stay float"
        )


def fake_quantize(network: Detector) -> QuantizedLayers:
    """Make a network round as its int8 file does; the names of its parameters do not change.

    Args:
        network: A float network, which is changed. Ranges start empty: train it, or load ranges.

    Raises:
        InputError: The network has layers that cannot be rounded.
    """
    if not can_be_quantized(network.facts.name):
        raise InputError(f"model {network.facts.name!r}: quantization-aware training needs yolov3 or yolov5 networks")
    joins = {id(block) for cell in _cells(network) for block in _readers_of_joins(cell)}
    before = sum(1 for _ in network.get_parameters())
    convolutions = outputs = 0
    roundings = Roundings()
    for parent in _cells(network):
        for name, cell in parent.name_cells().items():
            wrapper: QuantizedConv | QuantizedBottleneck | QuantizedOutput
            if isinstance(cell, Conv):
                block = cell.conv.weight.name.removesuffix(".conv.weight")
                wrapper = QuantizedConv(cell, block, roundings, rounds_input=id(cell) in joins)
                convolutions += 1
            elif isinstance(cell, Bottleneck) and cell.shortcut:
                block = cell.cv2.conv.weight.name.removesuffix(".cv2.conv.weight")
                wrapper = QuantizedBottleneck(cell, block, roundings)
            elif isinstance(cell, nn.Conv2d) and cell.has_bias:
                wrapper = QuantizedOutput(cell, roundings)
                outputs += 1
            else:
                continue
            # Unlike an assignment this keeps the names of the parameters.
            parent.insert_child_to_cell(name, wrapper)
        if isinstance(parent, nn.SequentialCell):
            parent.cell_list = list(parent.cells())
    ranges = sum(1 for _ in network.get_parameters()) - before
    return QuantizedLayers(convolutions + outputs, outputs, ranges)


def _cells(network: nn.Cell) -> list[nn.Cell]:
    return [cell for _, cell in network.cells_and_names()]


def _readers_of_joins(cell: nn.Cell) -> Iterator[nn.Cell]:
    """Yield the blocks of a cell whose input is a concatenation of values with different scales."""
    if isinstance(cell, C3):
        yield cell.cv3
    elif isinstance(cell, YoloV3Neck):
        yield from (cell.top4[0], cell.top3[0])
    elif isinstance(cell, YoloV5Neck):
        for stage in (cell.top4, cell.top3, cell.bottom4, cell.bottom5):
            yield from (stage.cv1, stage.cv2)
