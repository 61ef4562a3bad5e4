"""The YOLOv5 networks: CSP backbone, path aggregation neck (https://arxiv.org/abs/1803.01534), anchor head.

stride  backbone         neck, top-down                      neck, bottom-up                    head

  32    stage5* > reduce5 -+-----------------------------------------------> concat > bottom5 > m.2
        c5  ^     c4       |                                                   ^      c5
            |              |                                                   |
           down5 c5       up                                                  down4 c4
            |              |                                                   |
            |              v                                                   |
  16    stage4 --------> concat > top4 > reduce4 -+--------> concat > bottom4 -+--------------> m.1
        c4  ^                     c4     c3       |            ^      c4
            |                                     |            |
           down4 c4                              up           down3 c3
            |                                     |            |
            |                                     v            |
   8    stage3 -------------------------------> concat > top3 -+------------------------------> m.0
        c3  ^                                            c3
            |
           down3 c3
            |
   4    stage2
        c2
           ^ down2 c2
   2    stem
        c1

Below each block are its output channels: c1 to c5 are 64, 128, 256, 512 and 1024 times the width of the model, rounded
up to a multiple of 8. ``up`` doubles height and width, ``down`` halves them, ``concat`` joins channels; ``m`` is the
head, finest level first. Stages and the blocks of the neck are C3 blocks.

(*) Release 5.0 pools before ``stage5``, release 7 after it.
"""

from __future__ import annotations

import math

from mindspore import Tensor, nn, ops

from kubeyolo.models.blocks import C3, SPP, SPPF, Conv, Focus, Upsample
from kubeyolo.models.detector import Detector
from kubeyolo.models.facts import ModelFacts

_CHANNELS = (64, 128, 256, 512, 1024)


class YoloV5Backbone(nn.Cell):
    """Feature maps of strides 8, 16 and 32.

    Attributes:
        out_channels: Channels of the three feature maps.
    """

    def __init__(self, facts: ModelFacts) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = _widths(facts)
        focus = bool(facts.shape["focus"])
        d2, d3, d4, d5 = (_depth(facts, depth) for depth in ((3, 9, 9, 3) if focus else (3, 6, 9, 3)))
        self.out_channels = (c3, c4, c5)
        self.stem = Focus(3, c1) if focus else Conv(3, c1, 6, 2, padding=2)
        self.down2 = Conv(c1, c2, 3, 2)
        self.stage2 = C3(c2, c2, d2)
        self.down3 = Conv(c2, c3, 3, 2)
        self.stage3 = C3(c3, c3, d3)
        self.down4 = Conv(c3, c4, 3, 2)
        self.stage4 = C3(c4, c4, d4)
        self.down5 = Conv(c4, c5, 3, 2)
        # Release 5.0 pools before the last stage, release 6 and later pool after it.
        self.pool_first = focus
        self.pool = SPP(c5, c5) if focus else SPPF(c5, c5)
        self.stage5 = C3(c5, c5, d5, shortcut=not focus)

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map images (N, 3, H, W) to the feature maps of strides 8, 16 and 32."""
        p3 = self.stage3(self.down3(self.stage2(self.down2(self.stem(x)))))
        p4 = self.stage4(self.down4(p3))
        p5 = self.down5(p4)
        p5 = self.stage5(self.pool(p5)) if self.pool_first else self.pool(self.stage5(p5))
        return p3, p4, p5


class YoloV5Neck(nn.Cell):
    """Top-down, then bottom-up aggregation; each level keeps its number of channels."""

    def __init__(self, facts: ModelFacts) -> None:
        super().__init__()
        _, _, c3, c4, c5 = _widths(facts)
        depth = _depth(facts, 3)
        self.up = Upsample()
        self.reduce5 = Conv(c5, c4, 1)
        self.top4 = C3(2 * c4, c4, depth, shortcut=False)
        self.reduce4 = Conv(c4, c3, 1)
        self.top3 = C3(2 * c3, c3, depth, shortcut=False)
        self.down3 = Conv(c3, c3, 3, 2)
        self.bottom4 = C3(2 * c3, c4, depth, shortcut=False)
        self.down4 = Conv(c4, c4, 3, 2)
        self.bottom5 = C3(2 * c4, c5, depth, shortcut=False)

    def construct(self, p3: Tensor, p4: Tensor, p5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mix the feature maps of the three levels."""
        lateral5 = self.reduce5(p5)
        lateral4 = self.reduce4(self.top4(ops.concat((self.up(lateral5), p4), 1)))
        n3 = self.top3(ops.concat((self.up(lateral4), p3), 1))
        n4 = self.bottom4(ops.concat((self.down3(n3), lateral4), 1))
        n5 = self.bottom5(ops.concat((self.down4(n4), lateral5), 1))
        return n3, n4, n5


def build_backbone(facts: ModelFacts) -> YoloV5Backbone:
    """Build the backbone; convolution weights are zero until they are initialised."""
    return YoloV5Backbone(facts)


def build_detector(facts: ModelFacts, num_classes: int) -> Detector:
    """Build the whole detector; convolution weights are zero until they are initialised."""
    backbone = YoloV5Backbone(facts)
    return Detector(facts, num_classes, backbone, YoloV5Neck(facts), backbone.out_channels)


def _widths(facts: ModelFacts) -> tuple[int, ...]:
    return tuple(math.ceil(channels * facts.shape["width"] / 8) * 8 for channels in _CHANNELS)


def _depth(facts: ModelFacts, depth: int) -> int:
    return max(round(depth * facts.shape["depth"]), 1)
