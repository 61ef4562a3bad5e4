"""YOLOv4: CSPDarknet53 with Mish, pyramid pooling and path aggregation (https://arxiv.org/abs/2004.10934)."""

from __future__ import annotations

from functools import partial

from mindspore import Tensor, nn, ops

from kubeyolo.models.blocks import Conv, CspStage, PyramidPool, Upsample, alternating_convs
from kubeyolo.models.detector import AnchorHead, Detector
from kubeyolo.models.facts import ModelFacts

DEPTHS = (1, 2, 8, 8, 4)
"""Residuals of the five stages."""


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
        for number, depth in enumerate(DEPTHS):
            channels = 64 * 2**number
            # In the first stage the branches are as wide as the stage, and its residual narrows instead.
            branch = channels if number == 0 else channels // 2
            hidden = channels // 2
            self.stage.append(CspStage(channels // 2, channels, branch, hidden, depth, eps, "mish"))

    def construct(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, 3, H, W) to the feature maps of strides 8, 16 and 32."""
        x = self.stem(x)
        features: tuple[Tensor, ...] = ()
        for number, stage in enumerate(self.stage):
            x = stage(x)
            if number >= 2:
                features += (x,)
        return features


class YoloV4Neck(nn.Cell):
    """Pyramid pooling, then top-down and bottom-up aggregation (https://arxiv.org/abs/1803.01534)."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        conv = partial(Conv, eps=eps, act="leaky")
        self.up = Upsample()
        self.before_pool = alternating_convs(1024, 512, 3, eps)
        self.pool = PyramidPool()
        self.after_pool = alternating_convs(2048, 512, 3, eps)
        self.reduce5 = conv(512, 256)
        self.lateral4 = conv(512, 256)
        self.top4 = alternating_convs(512, 256, 5, eps)
        self.reduce4 = conv(256, 128)
        self.lateral3 = conv(256, 128)
        self.top3 = alternating_convs(256, 128, 5, eps)
        self.out3 = conv(128, 256, 3)
        self.down3 = conv(128, 256, 3, 2)
        self.bottom4 = alternating_convs(512, 256, 5, eps)
        self.out4 = conv(256, 512, 3)
        self.down4 = conv(256, 512, 3, 2)
        self.bottom5 = alternating_convs(1024, 512, 5, eps)
        self.out5 = conv(512, 1024, 3)

    def construct(self, p3: Tensor, p4: Tensor, p5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map the feature maps of the three levels to 256, 512 and 1024 channels."""
        t5 = self.after_pool(self.pool(self.before_pool(p5)))
        t4 = self.top4(ops.concat((self.lateral4(p4), self.up(self.reduce5(t5))), 1))
        n3 = self.top3(ops.concat((self.lateral3(p3), self.up(self.reduce4(t4))), 1))
        n4 = self.bottom4(ops.concat((self.down3(n3), t4), 1))
        n5 = self.bottom5(ops.concat((self.down4(n4), t5), 1))
        return self.out3(n3), self.out4(n4), self.out5(n5)


def build_backbone(facts: ModelFacts) -> CspDarknet53:
    """Build the backbone; convolution weights are zero until they are initialised."""
    return CspDarknet53(facts.bn_eps)


def build_detector(facts: ModelFacts, num_classes: int) -> Detector:
    """Build the whole detector; convolution weights are zero until they are initialised."""
    head = AnchorHead((256, 512, 1024), facts.anchors_per_level, num_classes)
    return Detector(facts, num_classes, build_backbone(facts), YoloV4Neck(facts.bn_eps), head)
