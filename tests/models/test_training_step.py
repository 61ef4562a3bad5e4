"""The compiled step of every network: it learns, and its gradients are the same bits each time."""

from __future__ import annotations

import hashlib
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from kubeyolo.losses.build import build_loss
from kubeyolo.models.named_facts import model_names
from kubeyolo.models.registry import build_model
from tests.alone import run_alone

QUICK = ("yolov5n-r7", "yolov4-tiny")
SMALL = 30_000_000
"""Parameters of the networks that take larger steps."""
CODE = """
import sys
import mindspore as ms
from tests.models.test_training_step import check_step
ms.set_context(mode=ms.GRAPH_MODE, jit_syntax_level=ms.STRICT)
check_step(sys.argv[1])
from tests.alone import peak_memory
print(f"peak of {peak_memory() / 1e9:.1f} GB")
"""


class Total(nn.Cell):
    def __init__(self, network: nn.Cell, size: int) -> None:
        super().__init__()
        self.network = network
        self.loss = build_loss(network.facts, network.num_classes, size)

    def construct(self, images: ms.Tensor, labels: ms.Tensor) -> ms.Tensor:
        return self.loss(self.network(images), labels)[0]


class Gradients(nn.Cell):
    def __init__(self, total: Total) -> None:
        super().__init__()
        self.total = total
        self.weights = ms.ParameterTuple(total.trainable_params())
        self.gradient = ms.value_and_grad(total, None, self.weights)

    def construct(self, images: ms.Tensor, labels: ms.Tensor) -> tuple[ms.Tensor, tuple[ms.Tensor, ...]]:
        return self.gradient(images, labels)


@pytest.fixture
def graph_mode(pynative: None) -> None:
    ms.set_context(mode=ms.GRAPH_MODE, jit_syntax_level=ms.STRICT)


def every_model() -> list[Any]:
    """Return all models; `make ci` takes one of each kind of loss."""
    return [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.large]) for name in model_names()]


@pytest.mark.usefixtures("graph_mode")
@pytest.mark.parametrize("name", every_model())
def test_step_lowers_the_loss_and_repeats_bit_for_bit(name: str) -> None:
    if name in QUICK:
        check_step(name)
    else:
        # MindSpore keeps what it has compiled, and the memory of it, as long as the process lives.
        print(run_alone(CODE, name))


def check_step(name: str) -> None:
    network = build_model(name, 3)
    network.set_train(True)
    # Of one cell the statistics are of two values, and gradients have no bounds: two by two cells, but of the largest
    # network, which takes 16 GB with them, and 10 GB with one.
    size = min(2 * network.facts.strides[-1], 128)
    step = Gradients(Total(network, size))
    generator = np.random.default_rng(0)
    images = ms.Tensor(generator.random((2, 3, size, size), np.float32))
    rows = np.full((16, 6), -1, np.float32)
    rows[:4] = [
        [0, 0, 0.3, 0.3, 0.3, 0.4],
        [0, 2, 0.7, 0.6, 0.5, 0.5],
        [1, 1, 0.5, 0.5, 0.9, 0.8],
        [1, 0, 0.2, 0.8, 0.2, 0.2],
    ]
    labels = ms.Tensor(rows)

    before, gradients = step(images, labels)
    assert len(gradients) == len(network.trainable_params())
    assert all(np.abs(gradient.asnumpy()).max() > 0 for gradient in gradients)
    # Not the gradients themselves, which take as much memory as the network.
    first = digests(gradients)
    for _ in range(20 if name == "yolov5n-r7" else 2):
        again, gradients = step(images, labels)
        assert again.asnumpy() == before.asnumpy()
        assert digests(gradients) == first
    del gradients

    # Steps of one size, whether a loss is a sum or a mean.
    optimizer = nn.Adam(step.weights, learning_rate=0.005 if network.facts.parameters < SMALL else 0.001)
    for _ in range(8):
        optimizer(step(images, labels)[1])
    after = step(images, labels)[0]
    assert float(after.asnumpy()) < 0.9 * float(before.asnumpy())


def digests(gradients: tuple[ms.Tensor, ...]) -> list[str]:
    return [hashlib.sha256(gradient.asnumpy().tobytes()).hexdigest() for gradient in gradients]
