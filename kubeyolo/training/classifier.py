"""The classifier for the pretraining of a backbone: its network, loss, engine and accuracy."""

from __future__ import annotations

import functools

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from kubeyolo.arrays import Float32Array, Int32Array, Int64Array
from kubeyolo.config.schema import Config
from kubeyolo.config.training_schema import PretrainConfig, TrainConfig
from kubeyolo.data.crops import Crops, validation_batches
from kubeyolo.models.registry import build_backbone
from kubeyolo.output_streams import Show
from kubeyolo.training.engine import Engine
from kubeyolo.training.history import HistoryRow
from kubeyolo.training.optimizers import group_parameters
from kubeyolo.training.schedules import Schedule, cosine_factor
from kubeyolo.training.step import GradientSum

FINAL_LR = 0.01
"""Last learning rate as a fraction of the peak."""

TOP = 5
"""Top-5 accuracy: the class is among the five with the largest logits."""


class Classifier(nn.Cell):
    """The backbone, the mean of each of its feature maps, and one dense layer.

    The finer maps shorten the path to the early layers: with the coarsest map alone, the accuracy on small sets stays
    at chance level for hundreds of steps. The backbone's parameters have the same names as in the detector.
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
    """Mean cross entropy with smoothed labels (https://arxiv.org/abs/1512.00567); its only part is this mean.

    The total is the mean divided by the number of processes: the sum of the gradients of all processes is then the
    gradient of the mean over all of their crops.
    """

    def __init__(self, num_classes: int, world: int = 1, smoothing: float = 0.1) -> None:
        super().__init__()
        self.world = world
        self.num_classes = num_classes
        self.on = Tensor(1 - smoothing + smoothing / num_classes, ms.float32)
        self.off = Tensor(smoothing / num_classes, ms.float32)

    def construct(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Map logits (N, classes) and labels (N,) to the loss and its parts (1,)."""
        target = ops.one_hot(labels, self.num_classes, self.on, self.off)
        loss = -(ops.log_softmax(logits, 1) * target).sum(1).mean()
        part = loss.reshape(1)
        return (loss if self.world == 1 else loss / self.world), part


class Scorer(nn.Cell):
    """Computes logits of uint8 images, with the running statistics of batch normalization."""

    def __init__(self, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, images: Tensor) -> Tensor:
        """Map uint8 (N, 3, H, W) to (N, classes)."""
        return self.network(images.astype(ms.float32) * (1.0 / 255.0))


class Accuracy:
    """Measures the share of held-out crops that are classified correctly.

    Attributes:
        last: The newest metrics, 0..1: ``accuracy`` (top-1), and ``top5`` if there are more than 5 outputs. Empty
            before the first measurement.
    """

    def __init__(self, network: Classifier, crops: Crops, config: PretrainConfig, show: Show) -> None:
        self.last: dict[str, float] = {}
        self._network, self._crops, self._config, self._show = network, crops, config, show
        self._scorer = Scorer(network)

    def row(self, epoch: int, step: int) -> HistoryRow:
        """Return the row of the history after an epoch, counted from 0."""
        metrics = self.measure()
        top5 = f", top-5:{metrics['top5']:.4f}" if "top5" in metrics else ""
        self._show(f"epoch[{epoch}], held-out top-1:{metrics['accuracy']:.4f}{top5}")
        return HistoryRow(kind="pretrain", step=step, epoch=epoch, **metrics)

    def measure(self) -> dict[str, float]:
        """Return the metrics of the current weights."""
        self._scorer.set_train(False)
        right = np.zeros(TOP, np.int64)
        outputs = 0
        for batch in validation_batches(self._crops, self._config):
            logits = self._scorer(Tensor(batch.images)).asnumpy()
            right += hits(logits, batch.labels)
            outputs = logits.shape[1]
        self._network.set_train(True)
        self.last = {"accuracy": int(right[0]) / len(self._crops)}
        if outputs > TOP:
            self.last["top5"] = int(right.sum()) / len(self._crops)
        return self.last


def hits(logits: Float32Array, labels: Int32Array) -> Int64Array:
    """Count the images whose class has the largest logit, the second largest, up to the number :data:`TOP`.

    Args:
        logits: (images, classes); of equal logits the first is the larger.
        labels: (images,), -1 for padding, which is not counted.
    """
    order = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
    found = np.count_nonzero(order == labels[:, None], axis=0)
    return np.pad(found, (0, TOP - len(found))).astype(np.int64)


def build_engine(network: Classifier, num_classes: int, config: Config, steps: int, world: int = 1) -> Engine:
    """Return the engine: AdamW with a cosine schedule over the steps; a tenth of the steps is warm-up.

    Args:
        network: The network.
        num_classes: Number of its outputs.
        config: The configuration.
        steps: Number of all steps.
        world: Number of data-parallel processes, which have joined each other.
    """
    pretrain = config.pretrain
    train = TrainConfig(
        optimizer="adamw",
        lr=pretrain.lr,
        momentum=0.9,
        weight_decay=pretrain.weight_decay,
        grad_clip=config.train.grad_clip,
    )
    schedule = Schedule(
        # The factor falls with every step, because there are too few epochs to lower it only once an epoch.
        steps_per_epoch=1,
        lr=pretrain.lr,
        factor=functools.partial(cosine_factor, epochs=steps, final=FINAL_LR),
        warmup=steps // 10,
        momentum=train.momentum,
        warmup_momentum=train.momentum,
        lag=0,
    )
    shapes = [parameter.shape for parameter in group_parameters(network).all]
    reduce = GradientSum(shapes) if world > 1 else None
    return Engine(network, ClassificationLoss(num_classes, world), train, schedule, reduce, average=False)
