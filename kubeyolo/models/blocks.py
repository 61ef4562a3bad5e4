"""The blocks that the networks are built from.

All blocks can be exported to ONNX and MINDIR on a CPU. Feature maps are (N, C, H, W).
"""

from __future__ import annotations

from functools import partial

from mindspore import Tensor, nn, ops

from kubeyolo.models.activations import ActivationName, activation


class Conv(nn.Cell):
    """Convolution without bias, batch normalization, activation.

    Padding is symmetric, because published weights were trained that way: "same" would pad strided convolutions at the
    bottom and on the right only.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Side of the kernel in pixels.
        stride: Stride in pixels.
        padding: Rows and columns added on each side; None for kernel // 2.
        eps: Added to the variance by the batch normalization.
        act: Name of the activation function.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        padding: int | None = None,
        eps: float = 1e-3,
        act: ActivationName = "silu",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride,
            pad_mode="pad",
            padding=kernel // 2 if padding is None else padding,
            has_bias=False,
            weight_init="zeros",
        )
        self.bn = batch_norm(out_channels, eps)
        self.act = activation(act)

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H / stride, W / stride)."""
        return self.act(self.bn(self.conv(x)))


def batch_norm(channels: int, eps: float) -> nn.Cell:
    """Build a batch normalization in whose running averages a new batch has the weight 0.03."""
    # MindSpore's momentum is the weight of the old average.
    return nn.BatchNorm2d(channels, eps=eps, momentum=0.97)


class Focus(nn.Cell):
    """Space to depth, then a 3x3 convolution: (N, C, H, W) to (N, out, H / 2, W / 2).

    The four parts are in the order of rows and columns (0, 0), (1, 0), (0, 1), (1, 1).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv(4 * in_channels, out_channels, 3)

    def construct(self, x: Tensor) -> Tensor:
        """Halve the sides of the image; its pixels become channels."""
        parts = (x[:, :, ::2, ::2], x[:, :, 1::2, ::2], x[:, :, ::2, 1::2], x[:, :, 1::2, 1::2])
        return self.conv(ops.concat(parts, 1))


class Bottleneck(nn.Cell):
    """1x1 and 3x3 convolution, added to the input if ``shortcut`` is set.

    Args:
        channels: Channels of input and output.
        shortcut: Whether the input is added.
        hidden: Channels between the two convolutions; None for ``channels``.
        eps: Added to the variance by the batch normalizations.
        act: Name of the activation function.
    """

    def __init__(
        self, channels: int, shortcut: bool, hidden: int | None = None, eps: float = 1e-3, act: ActivationName = "silu"
    ) -> None:
        super().__init__()
        between = channels if hidden is None else hidden
        self.cv1 = Conv(channels, between, 1, eps=eps, act=act)
        self.cv2 = Conv(between, channels, 3, eps=eps, act=act)
        self.shortcut = shortcut

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        y = self.cv2(self.cv1(x))
        return x + y if self.shortcut else y


class C3(nn.Cell):
    """Cross-stage partial block with three 1x1 convolutions (https://arxiv.org/abs/1911.11929).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; each branch has half of them.
        depth: Number of bottlenecks.
        shortcut: Whether the bottlenecks add their input.
    """

    def __init__(self, in_channels: int, out_channels: int, depth: int, shortcut: bool = True) -> None:
        super().__init__()
        hidden = out_channels // 2
        self.cv1 = Conv(in_channels, hidden, 1)
        self.cv2 = Conv(in_channels, hidden, 1)
        self.cv3 = Conv(2 * hidden, out_channels, 1)
        self.m = nn.SequentialCell([Bottleneck(hidden, shortcut) for _ in range(depth)])

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H, W)."""
        return self.cv3(ops.concat((self.m(self.cv1(x)), self.cv2(x)), 1))


class CspStage(nn.Cell):
    """A stage of the CSPDarknet of YOLOv4, with Mish: halve the map, then residuals on one of two branches.

    down -+-> main -> m: residuals -> tail -> concat -> fuse
          +-> route ----------------------------^

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        branch: Channels of each branch.
        hidden: Channels inside a residual.
        depth: Number of residuals.
        eps: Added to the variance by the batch normalizations.
    """

    def __init__(self, in_channels: int, out_channels: int, branch: int, hidden: int, depth: int, eps: float) -> None:
        super().__init__()
        conv = partial(Conv, eps=eps, act="mish")
        self.down = conv(in_channels, out_channels, 3, 2)
        self.route = conv(out_channels, branch)
        self.main = conv(out_channels, branch)
        self.m = nn.SequentialCell([Bottleneck(branch, True, hidden, eps, "mish") for _ in range(depth)])
        self.tail = conv(branch, branch)
        self.fuse = conv(2 * branch, out_channels)

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H / 2, W / 2)."""
        x = self.down(x)
        return self.fuse(ops.concat((self.tail(self.m(self.main(x))), self.route(x)), 1))


def alternating_convs(in_channels: int, channels: int, count: int, eps: float) -> nn.SequentialCell:
    """Build convolutions: 1x1 to ``channels``, 3x3 to twice as many, in turn, starting with 1x1."""
    cells = []
    for number in range(count):
        kernel, out_channels = (3, 2 * channels) if number % 2 else (1, channels)
        cells.append(Conv(in_channels, out_channels, kernel, eps=eps, act="leaky"))
        in_channels = out_channels
    return nn.SequentialCell(cells)


class PyramidPool(nn.Cell):
    """The input joined with its maxima over 5, 9 and 13 pixels (https://arxiv.org/abs/1406.4729).

    Args:
        input_first: Whether the input comes first and the largest pool last, or the other way round as in darknet.
    """

    def __init__(self, input_first: bool = False) -> None:
        super().__init__()
        # With stride 1 and an odd kernel "same" is symmetric, and unlike "pad" it can be exported to ONNX.
        self.m = nn.CellList([nn.MaxPool2d(kernel, 1, pad_mode="same") for kernel in (5, 9, 13)])
        self.input_first = input_first

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, 4C, H, W)."""
        parts: tuple[Tensor, ...] = (x,)
        for pool in self.m:
            parts = parts + (pool(x),) if self.input_first else (pool(x),) + parts
        return ops.concat(parts, 1)


class SPP(nn.Cell):
    """Spatial pyramid pooling between two 1x1 convolutions."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        hidden = in_channels // 2
        self.cv1 = Conv(in_channels, hidden, 1)
        self.cv2 = Conv(4 * hidden, out_channels, 1)
        self.m = PyramidPool(input_first=True)

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H, W)."""
        return self.cv2(self.m(self.cv1(x)))


class SPPF(nn.Cell):
    """SPP(5, 9, 13) by three chained pools of 5 pixels, which give the same maxima with less work."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        hidden = in_channels // 2
        self.cv1 = Conv(in_channels, hidden, 1)
        self.cv2 = Conv(4 * hidden, out_channels, 1)
        self.m = nn.MaxPool2d(5, 1, pad_mode="same")

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H, W)."""
        x = self.cv1(x)
        y = self.m(x)
        z = self.m(y)
        return self.cv2(ops.concat((x, y, z, self.m(z)), 1))


class Upsample(nn.Cell):
    """Nearest-neighbour enlargement by two, by concatenation, because some resize operators cannot be exported.

    On a CPU, concatenation takes half the time of ``ops.tile``, forward and backward.
    """

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, 2H, 2W)."""
        n, c, h, w = x.shape
        column = x.reshape(n, c, h, w, 1)
        wide = ops.concat((column, column), 4).reshape(n, c, h, 2 * w)
        return ops.concat((wide, wide), 3).reshape(n, c, 2 * h, 2 * w)


class StagedBackbone(nn.Cell):
    """A stem and stages, each after a convolution that halves the map; the third and later stages feed the levels.

    Args:
        stem: First layers, which keep the size of the image.

    Attributes:
        out_channels: Channels of the feature maps of the levels, finest first.
    """

    def __init__(self, stem: nn.Cell) -> None:
        super().__init__()
        self.stem = stem
        self.down = nn.CellList()
        self.stage = nn.CellList()
        self.out_channels: tuple[int, ...] = ()

    def add_stage(self, down: nn.Cell, stage: nn.Cell, channels: int) -> None:
        """Add a stage with its number of channels, and the convolution that halves the map before it."""
        self.down.append(down)
        self.stage.append(stage)
        if len(self.stage) > 2:
            self.out_channels += (channels,)

    def construct(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, 3, H, W) to the feature maps of strides 8 and above."""
        x = self.stem(x)
        features: tuple[Tensor, ...] = ()
        for number, stage in enumerate(self.stage):
            x = stage(self.down[number](x))
            if number >= 2:
                features += (x,)
        return features
