"""Frozen parameters stay bit for bit: weights, averages, and the statistics of their batch normalizations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.errors import InputError
from kubeyolo.training.freeze import freeze, frozen_names
from kubeyolo.training.schedules import build_schedule
from tests.training.mean_loss import mean_loss

NAMES = ["backbone.stem.conv.weight", "backbone.stem.bn.gamma", "neck.out.conv.weight", "head.m.0.weight"]


@pytest.mark.parametrize(
    ("patterns", "count"),
    [(["backbone"], 2), (["backbone.*"], 2), (["*.conv.weight"], 2), (["neck.*", "head.m.[0-9].*"], 2), ([], 0)],
)
def test_patterns_choose_parameters(patterns: list[str], count: int) -> None:
    assert len(frozen_names(NAMES, patterns)) == count


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["backbone.stm.*"], r"'backbone.stm.\*' matches no parameter.*did you mean 'backbone.stem.\*'"),
        (["neck.*", "model.0.*"], r"'model.0.\*' matches no parameter.*names start with backbone., head., neck."),
        (["backbone", "neck.*", "head.*"], "all 4 parameters would be frozen"),
    ],
)
def test_patterns_that_make_no_sense_are_refused(patterns: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        frozen_names(NAMES, patterns)


def frozen_engine(optimizer: str, patterns: list[str]) -> Any:
    """Two convolutions with batch normalization and an output; the labels are the wanted mean of each image."""
    from mindspore import Tensor, nn

    from kubeyolo.training.engine import Engine

    network = nn.SequentialCell(
        nn.Conv2d(3, 4, 3, weight_init="zeros"),
        nn.BatchNorm2d(4, momentum=0.97),
        nn.Conv2d(4, 4, 3, weight_init="zeros"),
        nn.BatchNorm2d(4, momentum=0.97),
        nn.Conv2d(4, 1, 1, weight_init="zeros", has_bias=True),
    )
    rng = np.random.default_rng(0)
    for parameter in network.get_parameters():
        drawn = (
            rng.uniform(0.5, 1.5, parameter.shape) if "variance" in parameter.name else rng.normal(size=parameter.shape)
        )
        parameter.set_data(Tensor(drawn.astype(np.float32)))
    freeze(network, patterns)
    config = TrainConfig(optimizer=optimizer, lr=0.05, weight_decay=0.1, max_epoch=4, warmup_steps=1, ema_tau=1.0)
    return Engine(network, mean_loss(), config, build_schedule(config, steps_per_epoch=5))


def trained(engine: Any, steps: int) -> list[float]:
    losses = []
    for step in range(engine.step, steps):
        rng = np.random.default_rng([7, step])
        images, labels = rng.integers(0, 256, (2, 3, 8, 8), np.uint8), rng.random(2).astype(np.float32)
        losses.append(float(engine.train(images, labels).asnumpy()[0]))
    return losses


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
# The first two cells, or the middle: gradients flow through the latter.
@pytest.mark.parametrize("cells", [("0", "1"), ("2", "3")])
def test_frozen_arrays_are_equal_bit_for_bit_after_some_steps(
    optimizer: str, cells: tuple[str, str], mindspore_ready: None
) -> None:
    engine = frozen_engine(optimizer, [f"{cell}.*" for cell in cells])
    before = engine.capture({})
    trained(engine, 6)
    after = engine.capture({})
    frozen = {name for name in before.weights if name.split(".")[0] in cells}
    assert {
        f"{cells[1]}.moving_mean",
        f"{cells[1]}.moving_variance",
        f"{cells[1]}.gamma",
        f"{cells[0]}.weight",
    } <= frozen
    for name, value in before.weights.items():
        for part, array in (("weights", after.weights[name]), ("ema", after.ema[name])):
            assert np.array_equal(array, value) is (name in frozen), f"{part} {name}"
    assert not [name for name in after.moments if name.split(".", 1)[1] in frozen]


def test_frozen_normalizations_use_their_running_statistics(mindspore_ready: None) -> None:
    from mindspore import Tensor

    engine = frozen_engine("sgd", ["0.*", "1.*", "2.*", "3.*"])
    images = np.random.default_rng([7, 0]).integers(0, 256, (2, 3, 8, 8), np.uint8)
    network = engine.network
    in_training = network.set_train(True)(Tensor(images / np.float32(255)))
    in_evaluation = network.set_train(False)(Tensor(images / np.float32(255)))
    np.testing.assert_array_equal(in_training.asnumpy(), in_evaluation.asnumpy())


def test_a_frozen_training_continues_bit_for_bit(mindspore_ready: None) -> None:
    whole, first, second = (frozen_engine("adamw", ["0.*", "1.*"]) for _ in range(3))
    trained(whole, 6)
    trained(first, 3)
    second.restore(first.capture({}))
    trained(second, 6)
    a, b = whole.capture({}), second.capture({})
    for part in ("weights", "ema", "moments"):
        arrays, others = getattr(a, part), getattr(b, part)
        assert arrays.keys() == others.keys() and all(np.array_equal(arrays[name], others[name]) for name in arrays)
