"""YOLOv4-tiny: a small CSP backbone, two levels (https://arxiv.org/abs/2011.08036).

stride  backbone       neck, top-down  head

  32    last > top5 -----+----> out5 > m.1
        16c ^  8c        |      16c
            |           reduce5 4c
            |            |
           pool 16c     up
            |            v
  16    stage3 ------> concat > out4 > m.0
            ^    8c             8c
           pool 8c
            |
   8    stage2
            ^
           pool 4c
            |
   4    stage1
            ^
           down 2c
            |
   2    stem
        c

Below each block are its output channels, with c = 32. ``up`` doubles height and width, ``down`` and the ``pool`` at the
end of each stage halve them, ``concat`` joins channels; ``m`` is the head, finest level first. The neck reads the map
of ``stage3`` before its pool.
"""

from __future__ import annotations

from functools import partial

from mindspore import Tensor, nn, ops

from kubeyolo.models.blocks import Conv, Upsample
from kubeyolo.models.detector import Detector
from kubeyolo.models.facts import ModelFacts


class TinyBlock(nn.Cell):
    """A 3x3 convolution, then two more on the second half of its channels; maps (N, C, H, W) to two maps.

    Args:
        channels: Channels of the input.
        eps: Added to the variance by the batch normalizations.
    """

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        conv = partial(Conv, eps=eps, act="leaky")
        self.half = channels // 2
        self.cv1 = conv(channels, channels, 3)
        self.cv2 = conv(self.half, self.half, 3)
        self.cv3 = conv(self.half, self.half, 3)
        self.fuse = conv(channels, channels)
        self.pool = nn.MaxPool2d(2, 2)

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooled map (N, 2C, H / 2, W / 2) and the fused branches (N, C, H, W)."""
        x = self.cv1(x)
        y = self.cv2(x[:, self.half :, :, :])
        fused = self.fuse(ops.concat((self.cv3(y), y), 1))
        return self.pool(ops.concat((x, fused), 1)), fused


class TinyBackbone(nn.Cell):
    """Feature maps of strides 16 and 32.

    Attributes:
        out_channels: Channels of the two feature maps.
    """

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.out_channels = (256, 512)
        self.stem = Conv(3, 32, 3, 2, eps=eps, act="leaky")
        self.down = Conv(32, 64, 3, 2, eps=eps, act="leaky")
        self.stage1 = TinyBlock(64, eps)
        self.stage2 = TinyBlock(128, eps)
        self.stage3 = TinyBlock(256, eps)
        self.last = Conv(512, 512, 3, eps=eps, act="leaky")

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (N, 3, H, W) to the feature maps of strides 16 and 32."""
        x, _ = self.stage1(self.down(self.stem(x)))
        x, _ = self.stage2(x)
        x, p4 = self.stage3(x)
        return p4, self.last(x)


class TinyNeck(nn.Cell):
    """Top-down from stride 32 to stride 16."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        conv = partial(Conv, eps=eps, act="leaky")
        self.up = Upsample()
        self.top5 = conv(512, 256)
        self.out5 = conv(256, 512, 3)
        self.reduce5 = conv(256, 128)
        self.out4 = conv(384, 256, 3)

    def construct(self, p4: Tensor, p5: Tensor) -> tuple[Tensor, Tensor]:
        """Map the feature maps of the two levels to 256 and 512 channels."""
        n5 = self.top5(p5)
        n4 = ops.concat((self.up(self.reduce5(n5)), p4), 1)
        return self.out4(n4), self.out5(n5)


def build_backbone(facts: ModelFacts) -> TinyBackbone:
    """Build the backbone; convolution weights are zero until they are initialised."""
    return TinyBackbone(facts.bn_eps)


def build_detector(facts: ModelFacts, num_classes: int) -> Detector:
    """Build the whole detector; convolution weights are zero until they are initialised."""
    return Detector(facts, num_classes, build_backbone(facts), TinyNeck(facts.bn_eps), (256, 512))
