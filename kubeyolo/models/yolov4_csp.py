"""YOLOv4-CSP, the network of darknet's ``yolov4-csp.cfg`` (https://arxiv.org/abs/2011.08036).

Scaled-YOLOv4's ``yolov4-csp.yaml`` connects its layers differently: its weights do not fit this network.

stride backbone             neck, top-down            neck, bottom-up                           head

  32   stage.3 > pyramid -----+-------------------------------------> concat > bottom5 > out5 > m.2
       32c ^     16c          |                                         ^      16c       32c
           |                 reduce5 8c                                 |
           |                  |                                        down4 16c
           |                 up                                         |
           |                  v                                         |
  16   stage.2 > lateral4 > concat > top4 -+--------> concat > bottom4 -+--------------> out4 > m.1
       16c ^     8c                  8c    |            ^      8c                        16c
           |                              reduce4 4c    |
           |                               |           down3 8c
           |                              up            |
           |                               v            |
   8   stage.1 > lateral3 -------------> concat > top3 -+------------------------------> out3 > m.0
       8c  ^     4c                               4c                                     8c
           |
   4   stage.0
       4c
           ^
   2   down, residual
       2c
           ^
   1   stem
       c

Below each block are its output channels, with c = 32. ``up`` doubles height and width; each stage and ``down`` halve
them; ``concat`` joins channels; ``m`` is the head, finest level first. ``top`` and ``bottom`` are CSP blocks.
"""

from __future__ import annotations

from functools import partial

from mindspore import Tensor, nn, ops

from kubeyolo.models.blocks import Bottleneck, Conv, CspStage, PyramidPool
from kubeyolo.models.darknet_facts import DARKNET53_DEPTHS
from kubeyolo.models.detector import Detector
from kubeyolo.models.facts import ModelFacts
from kubeyolo.models.yolov4 import PathAggregation


class YoloV4CspBackbone(nn.Cell):
    """Feature maps of strides 8, 16 and 32.

    Attributes:
        out_channels: Channels of the three feature maps.
    """

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.out_channels = (256, 512, 1024)
        self.stem = Conv(3, 32, 3, eps=eps, act="mish")
        self.down = Conv(32, 64, 3, 2, eps=eps, act="mish")
        self.residual = Bottleneck(64, True, 32, eps, "mish")
        self.stage = nn.CellList()
        for number, depth in enumerate(DARKNET53_DEPTHS[1:]):
            half = 64 * 2**number
            self.stage.append(CspStage(half, 2 * half, half, half, depth, eps))

    def construct(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, 3, H, W) to the feature maps of strides 8, 16 and 32."""
        x = self.residual(self.down(self.stem(x)))
        features: tuple[Tensor, ...] = ()
        for number, stage in enumerate(self.stage):
            x = stage(x)
            if number >= 1:
                features += (x,)
        return features


class CspBlock(nn.Cell):
    """Fewer channels, then four convolutions on one of two branches; (N, 2C, H, W) to (N, C, H, W).

    reduce -+-> main: 1x1, 3x3, 1x1, 3x3 -> concat -> fuse
            +-> route -----------------------^
    """

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        conv = partial(Conv, eps=eps, act="mish")
        self.reduce = conv(2 * channels, channels)
        self.route = conv(channels, channels)
        self.main = nn.SequentialCell([conv(channels, channels, kernel) for kernel in (1, 3, 1, 3)])
        self.fuse = conv(2 * channels, channels)

    def construct(self, x: Tensor) -> Tensor:
        """Halve the channels."""
        x = self.reduce(x)
        return self.fuse(ops.concat((self.main(x), self.route(x)), 1))


class CspPyramid(nn.Cell):
    """Pyramid pooling on one of two branches; (N, 1024, H, W) to (N, 512, H, W).

    -+-> before: 1x1, 3x3, 1x1 -> pool -> after: 1x1, 3x3 -> concat -> fuse
     +-> route ------------------------------------------------^
    """

    def __init__(self, eps: float) -> None:
        super().__init__()
        conv = partial(Conv, eps=eps, act="mish")
        self.route = conv(1024, 512)
        self.before = nn.SequentialCell([conv(1024, 512), conv(512, 512, 3), conv(512, 512)])
        self.pool = PyramidPool()
        self.after = nn.SequentialCell([conv(2048, 512), conv(512, 512, 3)])
        self.fuse = conv(1024, 512)

    def construct(self, x: Tensor) -> Tensor:
        """Halve the channels."""
        return self.fuse(ops.concat((self.after(self.pool(self.before(x))), self.route(x)), 1))


class YoloV4CspNeck(PathAggregation):
    """The neck of YOLOv4 with CSP blocks instead of rows of convolutions."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.pyramid = CspPyramid(eps)
        self.add_levels(partial(Conv, eps=eps, act="mish"), partial(CspBlock, eps=eps))

    def pooled(self, p5: Tensor) -> Tensor:
        """Map (N, 1024, H, W) to (N, 512, H, W)."""
        return self.pyramid(p5)


def build_backbone(facts: ModelFacts) -> YoloV4CspBackbone:
    """Build the backbone; convolution weights are zero until they are initialised."""
    return YoloV4CspBackbone(facts.bn_eps)


def build_detector(facts: ModelFacts, num_classes: int) -> Detector:
    """Build the whole detector; convolution weights are zero until they are initialised."""
    return Detector(facts, num_classes, build_backbone(facts), YoloV4CspNeck(facts.bn_eps), (256, 512, 1024))
