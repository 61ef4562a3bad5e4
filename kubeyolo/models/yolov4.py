"""YOLOv4: CSPDarknet53 with Mish, pyramid pooling and path aggregation (https://arxiv.org/abs/2004.10934).

stride backbone             neck, top-down            neck, bottom-up                           head

  32   stage.4 > pooling -----+-------------------------------------> concat > bottom5 > out5 > m.2
       32c ^     16c          |                                         ^      16c       32c
           |                 reduce5 8c                                 |
           |                  |                                        down4 16c
           |                 up                                         |
           |                  v                                         |
  16   stage.3 > lateral4 > concat > top4 -+--------> concat > bottom4 -+--------------> out4 > m.1
       16c ^     8c                  8c    |            ^      8c                        16c
           |                              reduce4 4c    |
           |                               |           down3 8c
           |                              up            |
           |                               v            |
   8   stage.2 > lateral3 -------------> concat > top3 -+------------------------------> out3 > m.0
       8c  ^     4c                               4c                                     8c
           |
   4   stage.1
       4c
           ^
   2   stage.0
       2c
           ^
   1   stem
       c

Below each block are its output channels, with c = 32. ``up`` doubles height and width; each stage and ``down`` halve
them; ``concat`` joins channels; ``m`` is the head, finest level first. ``pooling`` is ``before_pool`` (three
convolutions), ``pool`` (maxima over 13, 9 and 5 pixels), ``after_pool`` (three); each ``top`` and each ``bottom`` is
five convolutions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mindspore import Tensor, nn, ops

from kubeyolo.models.blocks import Conv, CspStage, PyramidPool, Upsample, alternating_convs
from kubeyolo.models.darknet_facts import DARKNET53_DEPTHS
from kubeyolo.models.detector import Detector
from kubeyolo.models.facts import ModelFacts


class CspDarknet53(nn.Cell):
    """Feature maps of strides 8, 16 and 32.

    Attributes:
        out_channels: Channels of the three feature maps.
    """

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.out_channels = (256, 512, 1024)
        self.stem = Conv(3, 32, 3, eps=eps, act="mish")
        self.stage = nn.CellList()
        for number, depth in enumerate(DARKNET53_DEPTHS):
            channels = 64 * 2**number
            # In the first stage the branches are as wide as the stage, and its residual narrows instead.
            branch = channels if number == 0 else channels // 2
            hidden = channels // 2
            self.stage.append(CspStage(channels // 2, channels, branch, hidden, depth, eps))

    def construct(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, 3, H, W) to the feature maps of strides 8, 16 and 32."""
        x = self.stem(x)
        features: tuple[Tensor, ...] = ()
        for number, stage in enumerate(self.stage):
            x = stage(x)
            if number >= 2:
                features += (x,)
        return features


class PathAggregation(nn.Cell):
    """Top-down and bottom-up aggregation of three levels (https://arxiv.org/abs/1803.01534), drawn above.

    A subclass adds the cells that pool the coarsest map, then calls :meth:`add_levels`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.up = Upsample()

    def add_levels(self, conv: Callable[..., nn.Cell], block: Callable[[int], nn.Cell]) -> None:
        """Add the cells of the levels.

        Args:
            conv: Makes a convolution from channels of input and output, kernel and stride.
            block: Makes the convolutions of ``top`` and ``bottom``, from twice the given channels to these channels.
        """
        self.reduce5 = conv(512, 256)
        self.lateral4 = conv(512, 256)
        self.top4 = block(256)
        self.reduce4 = conv(256, 128)
        self.lateral3 = conv(256, 128)
        self.top3 = block(128)
        self.out3 = conv(128, 256, 3)
        self.down3 = conv(128, 256, 3, 2)
        self.bottom4 = block(256)
        self.out4 = conv(256, 512, 3)
        self.down4 = conv(256, 512, 3, 2)
        self.bottom5 = block(512)
        self.out5 = conv(512, 1024, 3)

    def pooled(self, p5: Tensor) -> Tensor:
        """Map (N, 1024, H, W) to (N, 512, H, W)."""
        raise NotImplementedError

    def construct(self, p3: Tensor, p4: Tensor, p5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map the feature maps of the three levels to 256, 512 and 1024 channels."""
        t5 = self.pooled(p5)
        t4 = self.top4(ops.concat((self.lateral4(p4), self.up(self.reduce5(t5))), 1))
        n3 = self.top3(ops.concat((self.lateral3(p3), self.up(self.reduce4(t4))), 1))
        n4 = self.bottom4(ops.concat((self.down3(n3), t4), 1))
        n5 = self.bottom5(ops.concat((self.down4(n4), t5), 1))
        return self.out3(n3), self.out4(n4), self.out5(n5)


class YoloV4Neck(PathAggregation):
    """Pyramid pooling between rows of convolutions; each block is a row of five convolutions."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.before_pool = alternating_convs(1024, 512, 3, eps)
        self.pool = PyramidPool()
        self.after_pool = alternating_convs(2048, 512, 3, eps)
        self.add_levels(
            partial(Conv, eps=eps, act="leaky"), lambda channels: alternating_convs(2 * channels, channels, 5, eps)
        )

    def pooled(self, p5: Tensor) -> Tensor:
        """Map (N, 1024, H, W) to (N, 512, H, W)."""
        return self.after_pool(self.pool(self.before_pool(p5)))


def build_backbone(facts: ModelFacts) -> CspDarknet53:
    """Build the backbone; convolution weights are zero until they are initialised."""
    return CspDarknet53(facts.bn_eps)


def build_detector(facts: ModelFacts, num_classes: int) -> Detector:
    """Build the whole detector; convolution weights are zero until they are initialised."""
    return Detector(facts, num_classes, build_backbone(facts), YoloV4Neck(facts.bn_eps), (256, 512, 1024))
