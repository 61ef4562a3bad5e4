"""YOLOv3: DarkNet53, a top-down neck (https://arxiv.org/abs/1804.02767), anchor head.

stride  backbone      neck, top-down                      head

  32    stage.4 > top5 -+------------------------> out5 > m.2
        32c ^     16c   |                          32c
            |          reduce5 8c
           down.4       |
            |          up
            |           v
  16    stage.3 ----> concat > top4 -+-----------> out4 > m.1
        16c ^                  8c    |             16c
            |                       reduce4 4c
           down.3                    |
            |                       up
            |                        v
   8    stage.2 -----------------> concat > top3 > out3 > m.0
        8c  ^                               4c     8c
            |
           down.2
            |
   4    stage.1
        4c
           ^ down.1
   2    stage.0
        2c
           ^ down.0
   1    stem
        c

Below each block are its output channels, with c = 32. ``up`` doubles height and width, ``down`` halves them, ``concat``
joins channels; ``m`` is the head, finest level first. Each ``top`` is five convolutions.
"""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from kubeyolo.models.activations import ActivationName
from kubeyolo.models.blocks import Bottleneck, Conv, StagedBackbone, Upsample, alternating_convs
from kubeyolo.models.darknet_facts import DARKNET53_DEPTHS
from kubeyolo.models.detector import Detector
from kubeyolo.models.facts import ModelFacts


class DarkNet53(StagedBackbone):
    """Feature maps of strides 8, 16 and 32, with 8c, 16c and 32c channels; c is the number of channels of the stem."""

    def __init__(self, c: int, eps: float, act: ActivationName) -> None:
        super().__init__(Conv(3, c, 3, eps=eps, act=act))
        for number, depth in enumerate(DARKNET53_DEPTHS):
            channels = 2 * c * 2**number
            residuals = [Bottleneck(channels, True, channels // 2, eps, act) for _ in range(depth)]
            down = Conv(channels // 2, channels, 3, 2, eps=eps, act=act)
            self.add_stage(down, nn.SequentialCell(residuals), channels)


class YoloV3Neck(nn.Cell):
    """Top-down: each level joins its feature map with the enlarged map of the coarser level."""

    def __init__(self, c: int, eps: float) -> None:
        super().__init__()
        self.up = Upsample()
        self.top5 = alternating_convs(32 * c, 16 * c, 5, eps)
        self.out5 = Conv(16 * c, 32 * c, 3, eps=eps, act="leaky")
        self.reduce5 = Conv(16 * c, 8 * c, eps=eps, act="leaky")
        self.top4 = alternating_convs(24 * c, 8 * c, 5, eps)
        self.out4 = Conv(8 * c, 16 * c, 3, eps=eps, act="leaky")
        self.reduce4 = Conv(8 * c, 4 * c, eps=eps, act="leaky")
        self.top3 = alternating_convs(12 * c, 4 * c, 5, eps)
        self.out3 = Conv(4 * c, 8 * c, 3, eps=eps, act="leaky")

    def construct(self, p3: Tensor, p4: Tensor, p5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map the feature maps of the three levels to 8c, 16c and 32c channels."""
        n5 = self.top5(p5)
        n4 = self.top4(ops.concat((self.up(self.reduce5(n5)), p4), 1))
        n3 = self.top3(ops.concat((self.up(self.reduce4(n4)), p3), 1))
        return self.out3(n3), self.out4(n4), self.out5(n5)


def build_backbone(facts: ModelFacts) -> DarkNet53:
    """Build the backbone; convolution weights are zero until they are initialised."""
    return DarkNet53(_channels(facts), facts.bn_eps, "relu" if facts.shape["relu_backbone"] else "leaky")


def build_detector(facts: ModelFacts, num_classes: int) -> Detector:
    """Build the whole detector; convolution weights are zero until they are initialised."""
    c = _channels(facts)
    return Detector(facts, num_classes, build_backbone(facts), YoloV3Neck(c, facts.bn_eps), (8 * c, 16 * c, 32 * c))


def _channels(facts: ModelFacts) -> int:
    """Return the number of channels of the stem, from which all others follow."""
    return int(facts.shape["channels"])
