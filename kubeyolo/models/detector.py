"""A detector: backbone, neck and anchor head."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Tensor, nn, ops

from kubeyolo.models.facts import ModelFacts


class AnchorHead(nn.Cell):
    """One 1x1 convolution with bias for each level.

    Args:
        in_channels: Channels of each level.
        anchors_per_level: Number of anchors.
        num_classes: Number of classes.
    """

    def __init__(self, in_channels: Sequence[int], anchors_per_level: int, num_classes: int) -> None:
        super().__init__()
        self.num_anchors = anchors_per_level
        self.num_outputs = 5 + num_classes
        out_channels = anchors_per_level * self.num_outputs
        self.m = nn.CellList(
            [
                nn.Conv2d(channels, out_channels, 1, has_bias=True, weight_init="zeros", bias_init="zeros")
                for channels in in_channels
            ]
        )

    def construct(self, *features: Tensor) -> tuple[Tensor, ...]:
        """Map (N, C, ny, nx) of each level to (N, anchor, ny, nx, 5 + classes)."""
        raws: tuple[Tensor, ...] = ()
        for level, convolution in enumerate(self.m):
            y = convolution(features[level])
            n, _, ny, nx = y.shape
            y = ops.transpose(y.reshape(n, self.num_anchors, self.num_outputs, ny, nx), (0, 1, 3, 4, 2))
            raws += (y,)
        return raws


class Detector(nn.Cell):
    """Maps images to the raw predictions of each level.

    Args:
        facts: Facts of the model, with the anchors that the detector uses.
        num_classes: Number of classes.
        backbone: Maps images to a feature map for each level.
        neck: Maps these feature maps to the feature maps that the head reads.
        head_channels: Channels of the feature maps that the head reads, finest level first.
    """

    def __init__(
        self, facts: ModelFacts, num_classes: int, backbone: nn.Cell, neck: nn.Cell, head_channels: Sequence[int]
    ) -> None:
        super().__init__()
        self.facts = facts
        self.num_classes = num_classes
        self.backbone = backbone
        self.neck = neck
        self.head = AnchorHead(head_channels, facts.anchors_per_level, num_classes)

    def construct(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, 3, H, W) in [0, 1] to (N, anchor, ny, nx, 5 + classes) of each level, finest first."""
        return self.head(*self.neck(*self.backbone(x)))
