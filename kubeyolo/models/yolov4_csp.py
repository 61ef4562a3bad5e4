"""YOLOv4-CSP, the network of darknet's ``yolov4-csp.cfg`` (https://arxiv.org/abs/2011.08036).

Scaled-YOLOv4's ``yolov4-csp.yaml`` is wired in another way: its weights are not those of this network.
"""

from __future__ import annotations

from functools import partial

from mindspore import Tensor, nn, ops

from kubeyolo.models.blocks import Bottleneck, Conv, CspStage, PyramidPool, Upsample
from kubeyolo.models.detector import AnchorHead, Detector
from kubeyolo.models.facts import ModelFacts

DEPTHS = (2, 8, 8, 4)
"""Residuals of the stages of strides 4 to 32."""


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
        for number, depth in enumerate(DEPTHS):
            half = 64 * 2**number
            self.stage.append(CspStage(half, 2 * half, half, half, depth, eps, "mish"))

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
    """Narrow, then four convolutions on one of two branches; (N, 2C, H, W) to (N, C, H, W)."""

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
    """Pyramid pooling on one of two branches; (N, 1024, H, W) to (N, 512, H, W)."""

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


class YoloV4CspNeck(nn.Cell):
    """Pyramid pooling, then top-down and bottom-up aggregation (https://arxiv.org/abs/1803.01534)."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        conv = partial(Conv, eps=eps, act="mish")
        self.up = Upsample()
        self.pyramid = CspPyramid(eps)
        self.reduce5 = conv(512, 256)
        self.lateral4 = conv(512, 256)
        self.top4 = CspBlock(256, eps)
        self.reduce4 = conv(256, 128)
        self.lateral3 = conv(256, 128)
        self.top3 = CspBlock(128, eps)
        self.out3 = conv(128, 256, 3)
        self.down3 = conv(128, 256, 3, 2)
        self.bottom4 = CspBlock(256, eps)
        self.out4 = conv(256, 512, 3)
        self.down4 = conv(256, 512, 3, 2)
        self.bottom5 = CspBlock(512, eps)
        self.out5 = conv(512, 1024, 3)

    def construct(self, p3: Tensor, p4: Tensor, p5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map the feature maps of the three levels to 256, 512 and 1024 channels."""
        t5 = self.pyramid(p5)
        t4 = self.top4(ops.concat((self.lateral4(p4), self.up(self.reduce5(t5))), 1))
        n3 = self.top3(ops.concat((self.lateral3(p3), self.up(self.reduce4(t4))), 1))
        n4 = self.bottom4(ops.concat((self.down3(n3), t4), 1))
        n5 = self.bottom5(ops.concat((self.down4(n4), t5), 1))
        return self.out3(n3), self.out4(n4), self.out5(n5)


def build_backbone(facts: ModelFacts) -> YoloV4CspBackbone:
    """Build the backbone; convolution weights are zero until they are initialised."""
    return YoloV4CspBackbone(facts.bn_eps)


def build_detector(facts: ModelFacts, num_classes: int) -> Detector:
    """Build the whole detector; convolution weights are zero until they are initialised."""
    head = AnchorHead((256, 512, 1024), facts.anchors_per_level, num_classes)
    return Detector(facts, num_classes, build_backbone(facts), YoloV4CspNeck(facts.bn_eps), head)
