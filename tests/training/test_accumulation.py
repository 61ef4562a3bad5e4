"""Gradients of several batches are added, and the weights are updated as from one large batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.training.accumulation import Accumulation, build_accumulation


@pytest.mark.parametrize(
    ("images", "nominal", "batches", "factor"),
    [(8, 0, 1, 1.0), (8, 64, 8, 1.0), (24, 64, 3, 1.125), (64, 64, 1, 1.0), (128, 64, 1, 2.0), (2, 6, 3, 1.0)],
)
def test_batches_and_weight_decay_of_an_update(images: int, nominal: int, batches: int, factor: float) -> None:
    accumulation = Accumulation(images, nominal)
    assert (accumulation.batches, accumulation.decay_factor) == (batches, factor)


def test_the_warm_up_raises_the_number_of_batches() -> None:
    accumulation = Accumulation(images=8, nominal=64, warmup=14)
    # 1 + 7 · step / 14, rounded to even at a half: the published programs round alike.
    assert [accumulation.batches_at(step) for step in range(15)] == [1, 2, 2, 2, 3, 4, 4, 4, 5, 6, 6, 6, 7, 8, 8]


@pytest.mark.parametrize("warmup", [0, 3, 14])
def test_updates_are_counted_as_the_steps_make_them(warmup: int) -> None:
    accumulation = Accumulation(images=8, nominal=40, warmup=warmup)
    updates = waiting = 0
    for step in range(60):
        assert accumulation.updates_after(step) == (updates, waiting)
        waiting += 1
        if waiting >= accumulation.batches_at(step):
            updates, waiting = updates + 1, 0


def darknet_engine(images: int, nominal: int, momentum: float) -> Any:
    """A network of two convolutions under the loss of YOLOv4, without batch normalization."""
    from mindspore import Tensor, nn

    from kubeyolo.losses.darknet import DarknetLoss
    from kubeyolo.training.engine import Engine
    from kubeyolo.training.schedules import build_schedule

    class Network(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 8, stride=8, pad_mode="pad", has_bias=True)
            self.head = nn.Conv2d(4, 3 * (5 + CLASSES), 1, has_bias=True)

        def construct(self, x: Tensor) -> tuple[Tensor, ...]:
            raw = self.head(self.stem(x))
            n, _, ny, nx = raw.shape
            return (raw.reshape(n, 3, 5 + CLASSES, ny, nx).transpose(0, 1, 3, 4, 2),)

    network, rng = Network(), np.random.default_rng(0)
    for parameter in network.trainable_params():
        parameter.set_data(Tensor(0.1 * rng.standard_normal(parameter.shape).astype(np.float32)))
    config = TrainConfig(lr=0.01, momentum=momentum, max_epoch=50, warmup_epochs=0, nominal_batch=nominal)
    loss = DarknetLoss((((8, 8), (16, 24), (30, 20)),), (8,), CLASSES, (1.05,), "ciou", (10.0, 1.0, 1.0), divisor=64.0)
    steps = UPDATES * 32 // images
    accumulation = build_accumulation(config, images, steps)
    return Engine(network, loss, config, build_schedule(config, steps), accumulation=accumulation)


CLASSES, SIZE, UPDATES = 3, 32, 10


def test_four_batches_of_8_update_the_weights_as_one_batch_of_32(mindspore_ready: None) -> None:
    """The loss of the darknet family is a mean over the images, so the added gradients are divided by the batches."""
    rng = np.random.default_rng(1)
    whole, parts = darknet_engine(32, 0, 0.9), darknet_engine(8, 32, 0.9)
    before = whole.capture({}).weights
    for _ in range(UPDATES):
        images = rng.integers(0, 256, (32, 3, SIZE, SIZE), np.uint8)
        labels = np.concatenate(
            [np.arange(32)[:, None], rng.integers(0, CLASSES, (32, 1)), rng.uniform(0.2, 0.8, (32, 4))], 1
        ).astype(np.float32)
        whole.train(images, labels)
        for start in range(0, 32, 8):
            some = labels[start : start + 8] - np.array([start, 0, 0, 0, 0, 0], np.float32)
            losses = parts.train(images[start : start + 8], some)
            assert bool(losses.asnumpy()[-1] > 0) is (start == 24)  # the norm of the gradients, once an update
    (a, b) = (engine.capture({}) for engine in (whole, parts))
    assert (a.optimizer_steps, b.optimizer_steps, a.step, b.step) == (UPDATES, UPDATES, UPDATES, 4 * UPDATES)
    for name, array in a.weights.items():
        np.testing.assert_allclose(b.weights[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
        assert np.abs(array - before[name]).max() > 1e-4
