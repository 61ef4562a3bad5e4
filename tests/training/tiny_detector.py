"""A detector of few channels with the strides, the anchors and the loss of a model, which is compiled in seconds."""

from __future__ import annotations

from typing import Any

import numpy as np

from kubeyolo.config.training_schema import AugmentConfig, DataConfig, TrainConfig
from kubeyolo.data.loader import Loader
from kubeyolo.data.sampler import SizeSchedule
from kubeyolo.models.facts import ModelFacts
from kubeyolo.training.accumulation import build_accumulation
from kubeyolo.training.schedules import build_schedule
from tests.data.rendered_split import RenderedSplit

CLASSES, CHANNELS, IMAGES, BATCH = 3, 8, 16, 4
STEPS_PER_EPOCH = IMAGES // BATCH


def tiny_network(facts: ModelFacts) -> Any:
    """Return a network with a convolution for each level; its weights are the same in every call."""
    from mindspore import Tensor, nn

    from kubeyolo.models.detector import AnchorHead

    class TinyDetector(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            first = facts.strides[0]
            self.stem = nn.Conv2d(3, CHANNELS, first, stride=first, pad_mode="valid")
            self.norm = nn.BatchNorm2d(CHANNELS, momentum=0.97)
            self.relu = nn.ReLU()
            self.downs = nn.CellList(
                [nn.Conv2d(CHANNELS, CHANNELS, 3, 2, pad_mode="pad", padding=1) for _ in facts.strides[1:]]
            )
            self.head = AnchorHead([CHANNELS] * len(facts.strides), facts.anchors_per_level, CLASSES)

        def construct(self, x: Tensor) -> tuple[Tensor, ...]:
            x = self.relu(self.norm(self.stem(x)))
            features: tuple[Tensor, ...] = (x,)
            for down in self.downs:
                x = self.relu(down(x))
                features += (x,)
            return self.head(*features)

    network, rng = TinyDetector(), np.random.default_rng(0)
    for parameter in network.trainable_params():
        parameter.set_data(Tensor((0.1 * rng.standard_normal(parameter.shape)).astype(np.float32)))
    return network


def tiny_engine(facts: ModelFacts, image_size: int, epochs: int, nominal_batch: int = 0, world: int = 1) -> Any:
    """Return an engine that trains the network with the loss of the model, in one or several processes."""
    from kubeyolo.losses.build import build_loss
    from kubeyolo.training.engine import Engine
    from kubeyolo.training.optimizers import group_parameters
    from kubeyolo.training.step import GradientSum

    config = TrainConfig(
        lr=0.02, max_epoch=epochs, warmup_epochs=0, nominal_batch=nominal_batch, grad_clip=10.0, ema_tau=5.0
    )
    network, loss = tiny_network(facts), build_loss(facts, CLASSES, image_size, processes=world)
    shapes = [parameter.shape for parameter in group_parameters(network).all]
    reduce = GradientSum(shapes) if world > 1 else None
    accumulation = build_accumulation(config, BATCH * world, STEPS_PER_EPOCH)
    schedule = build_schedule(config, STEPS_PER_EPOCH)
    return Engine(network, loss, config, schedule, reduce, accumulation=accumulation)


def rendered_loader(image_size: int, sizes: SizeSchedule, **options: Any) -> Loader:
    """Return batches of 16 rendered images for each process, made in this process."""
    split, data = RenderedSplit(IMAGES * options.get("world", 1)), DataConfig(workers=0, label_capacity=64)
    return Loader(split, data, AugmentConfig(), image_size, BATCH, 7, sizes=sizes, **options)
