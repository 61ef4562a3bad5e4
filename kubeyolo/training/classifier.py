"""The classifier that a backbone is pretrained as."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from kubeyolo.models.registry import build_backbone


class Classifier(nn.Cell):
    """Backbone, means over each of its feature maps, one dense layer.

    The finer maps shorten the way to the early layers: with the coarsest one alone small sets stay at chance for
    hundreds of steps. The backbone's parameters have the names that they have in the detector.
    """

    def __init__(self, model: str, num_classes: int, seed: int) -> None:
        super().__init__()
        self.backbone = build_backbone(model, seed=seed)
        channels = sum(self.backbone.out_channels)
        bound = 1 / np.sqrt(channels)
        weight = np.random.default_rng([seed, num_classes]).uniform(-bound, bound, (num_classes, channels))
        self.weight = Parameter(Tensor(weight.astype(np.float32)), name="classifier.weight")
        self.bias = Parameter(Tensor(np.zeros(num_classes, np.float32)), name="classifier.bias")

    def construct(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W) in [0, 1] to (N, classes) logits."""
        means: tuple[Tensor, ...] = ()
        for features in self.backbone(x):
            means += (features.mean((2, 3)),)
        return ops.matmul(ops.concat(means, 1), ops.transpose(self.weight, (1, 0))) + self.bias


class ClassificationLoss(nn.Cell):
    """Mean cross entropy with smoothed labels (https://arxiv.org/abs/1512.00567); parts: itself."""

    def __init__(self, num_classes: int, smoothing: float = 0.1) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.on = Tensor(1 - smoothing + smoothing / num_classes, ms.float32)
        self.off = Tensor(smoothing / num_classes, ms.float32)

    def construct(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Map logits (N, classes) and labels (N,) to the loss and its parts (1,)."""
        target = ops.one_hot(labels, self.num_classes, self.on, self.off)
        loss = -(ops.log_softmax(logits, 1) * target).sum(1).mean()
        return loss, loss.reshape(1)


class Scorer(nn.Cell):
    """Logits of uint8 images, with the running statistics of batch normalisation."""

    def __init__(self, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, images: Tensor) -> Tensor:
        """Map uint8 (N, 3, H, W) to (N, classes)."""
        return self.network(images.astype(ms.float32) * (1.0 / 255.0))
