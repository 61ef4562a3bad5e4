"""The large Scaled-YOLOv4 networks P5, P6 and P7: three, four and five levels (https://arxiv.org/abs/2011.08036).

stride  backbone              neck, top-down              neck, bottom-up

  32    stage.4 > pool ---------+----------------------------------------> concat > bottom.1 > out.2
        b5  ^     w5            |                                            ^      w5
            |                  reduce.1 w4                                   |
           down.4               |                                           down.1 w5
            |                  up                                            |
            |                   v                                            |
  16    stage.3 > lateral.1 > concat > top.1 -+---------> concat > bottom.0 -+---------------> out.1
        b4  ^     w4                   w4     |             ^      w4
            |                                reduce.0 w3    |
           down.3                             |            down.0 w4
            |                                up             |
            |                                 v             |
   8    stage.2 > lateral.0 --------------> concat > top.0 -+--------------------------------> out.0
        b3  ^     w3                                 w3
            |
           down.2
            |
   4    stage.1
        b2
           ^ down.1
   2    stage.0
        b1
           ^ down.0
   1    stem

This is P5. P6 has one more level (stride 64), P7 two (strides 64 and 128), wired like the level of stride 16; ``pool``
is at the coarsest level. Below each block are its output channels: ``b`` of the stages, ``w`` within the neck; ``out``
has twice as many and feeds the head. ``up`` doubles height and width, ``down`` halves them, ``concat`` joins channels.
"""

from __future__ import annotations

import math
from functools import partial

from mindspore import Tensor, nn, ops

from kubeyolo.models.activations import Mish
from kubeyolo.models.blocks import Bottleneck, Conv, PyramidPool, StagedBackbone, Upsample, batch_norm
from kubeyolo.models.detector import Detector
from kubeyolo.models.facts import ModelFacts

# Channels and bottlenecks of the stages of strides 2 to 128.
_STAGES = ((64, 1), (128, 3), (256, 15), (512, 15), (1024, 7), (1024, 7), (1024, 7))
# Channels of the levels of strides 8 to 128 within the neck.
_NECK = (128, 256, 512, 512, 512)
_NECK_DEPTH = 3


def _plain(in_channels: int, out_channels: int) -> nn.Cell:
    return nn.Conv2d(in_channels, out_channels, 1, has_bias=False, weight_init="zeros")


class CspShortcuts(nn.Cell):
    """Bottlenecks with shortcut on one of two branches of half the channels; keeps the shape.

    Here and below the branches are normalized and activated after they are joined; the last layers of the branches have
    neither normalization nor activation. Layers are numbered as in the published weights.
    """

    def __init__(self, channels: int, depth: int, eps: float) -> None:
        super().__init__()
        half = channels // 2
        self.cv1 = Conv(channels, half, eps=eps, act="mish")
        self.cv2 = _plain(channels, half)
        self.cv3 = _plain(half, half)
        self.cv4 = Conv(channels, channels, eps=eps, act="mish")
        self.bn = batch_norm(channels, eps)
        self.act = Mish()
        self.m = nn.SequentialCell([Bottleneck(half, True, eps=eps, act="mish") for _ in range(depth)])

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        branches = ops.concat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), 1)
        return self.cv4(self.act(self.bn(branches)))


class CspBottlenecks(nn.Cell):
    """Fewer channels, then bottlenecks without shortcut on one of two branches; (N, in, H, W) to (N, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, depth: int, eps: float) -> None:
        super().__init__()
        self.cv1 = Conv(in_channels, out_channels, eps=eps, act="mish")
        self.cv2 = _plain(out_channels, out_channels)
        self.cv3 = Conv(2 * out_channels, out_channels, eps=eps, act="mish")
        self.bn = batch_norm(2 * out_channels, eps)
        self.act = Mish()
        self.m = nn.SequentialCell([Bottleneck(out_channels, False, eps=eps, act="mish") for _ in range(depth)])

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H, W)."""
        x = self.cv1(x)
        return self.cv3(self.act(self.bn(ops.concat((self.m(x), self.cv2(x)), 1))))


class CspPool(nn.Cell):
    """Pyramid pooling on one of two branches; (N, in, H, W) to (N, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, eps: float) -> None:
        super().__init__()
        conv = partial(Conv, eps=eps, act="mish")
        self.cv1 = conv(in_channels, out_channels)
        self.cv2 = _plain(in_channels, out_channels)
        self.cv3 = conv(out_channels, out_channels, 3)
        self.cv4 = conv(out_channels, out_channels)
        self.m = PyramidPool(input_first=True)
        self.cv5 = conv(4 * out_channels, out_channels)
        self.cv6 = conv(out_channels, out_channels, 3)
        self.bn = batch_norm(2 * out_channels, eps)
        self.act = Mish()
        self.cv7 = conv(2 * out_channels, out_channels)

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H, W)."""
        pooled = self.cv6(self.cv5(self.m(self.cv4(self.cv3(self.cv1(x))))))
        return self.cv7(self.act(self.bn(ops.concat((pooled, self.cv2(x)), 1))))


class ScaledBackbone(StagedBackbone):
    """Feature maps of stride 8 and above, one for each level."""

    def __init__(self, facts: ModelFacts) -> None:
        eps, channels = facts.bn_eps, _width(facts, 32)
        super().__init__(Conv(3, channels, 3, eps=eps, act="mish"))
        for wide, depth in _STAGES[: len(facts.strides) + 2]:
            down = Conv(channels, _width(facts, wide), 3, 2, eps=eps, act="mish")
            channels = _width(facts, wide)
            self.add_stage(down, CspShortcuts(channels, depth, eps), channels)


class ScaledNeck(nn.Cell):
    """Pyramid pooling, then top-down and bottom-up aggregation over any number of levels.

    Its cells are numbered by level, finest first: ``top.0`` makes the finest level, ``bottom.0`` the next level.

    Attributes:
        out_channels: Channels of each level.
    """

    def __init__(self, facts: ModelFacts, in_channels: tuple[int, ...]) -> None:
        super().__init__()
        eps, levels = facts.bn_eps, len(in_channels)
        conv = partial(Conv, eps=eps, act="mish")
        widths = [_width(facts, channels) for channels in _NECK[:levels]]
        self.levels = levels
        self.out_channels = tuple(2 * width for width in widths)
        self.up = Upsample()
        self.pool = CspPool(in_channels[-1], widths[-1], eps)
        self.reduce = nn.CellList([conv(widths[i + 1], widths[i]) for i in range(levels - 1)])
        self.lateral = nn.CellList([conv(in_channels[i], widths[i]) for i in range(levels - 1)])
        self.top = nn.CellList([CspBottlenecks(2 * widths[i], widths[i], _NECK_DEPTH, eps) for i in range(levels - 1)])
        self.down = nn.CellList([conv(widths[i], widths[i + 1], 3, 2) for i in range(levels - 1)])
        self.bottom = nn.CellList(
            [CspBottlenecks(2 * widths[i + 1], widths[i + 1], _NECK_DEPTH, eps) for i in range(levels - 1)]
        )
        self.out = nn.CellList([conv(width, 2 * width, 3) for width in widths])

    def construct(self, *features: Tensor) -> tuple[Tensor, ...]:
        """Mix the feature maps of the levels, finest first."""
        x = self.pool(features[self.levels - 1])
        tops: tuple[Tensor, ...] = (x,)
        for level in range(self.levels - 2, -1, -1):
            x = self.top[level](ops.concat((self.lateral[level](features[level]), self.up(self.reduce[level](x))), 1))
            tops = (x,) + tops
        outputs: tuple[Tensor, ...] = (self.out[0](x),)
        for level in range(1, self.levels):
            x = self.bottom[level - 1](ops.concat((self.down[level - 1](x), tops[level]), 1))
            outputs += (self.out[level](x),)
        return outputs


def build_backbone(facts: ModelFacts) -> ScaledBackbone:
    """Build the backbone; convolution weights are zero until they are initialised."""
    return ScaledBackbone(facts)


def build_detector(facts: ModelFacts, num_classes: int) -> Detector:
    """Build the whole detector; convolution weights are zero until they are initialised."""
    backbone = ScaledBackbone(facts)
    neck = ScaledNeck(facts, backbone.out_channels)
    return Detector(facts, num_classes, backbone, neck, neck.out_channels)


def _width(facts: ModelFacts, channels: int) -> int:
    return math.ceil(channels * facts.shape["width"] / 8) * 8
