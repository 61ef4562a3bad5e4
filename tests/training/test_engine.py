from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.errors import InputError
from kubeyolo.training.accumulation import build_accumulation
from kubeyolo.training.schedules import build_schedule, ema_decay
from tests.training.mean_loss import mean_loss

IMAGES = 2

pytestmark = pytest.mark.usefixtures("mindspore_ready")


def small_engine(optimizer: str = "sgd", lr: float = 0.05, nominal_batch: int = 0) -> Any:
    """A convolution, a batch normalization and a mean; the labels are the wanted mean of each image."""
    from mindspore import Tensor, nn

    from kubeyolo.training.engine import Engine

    network = nn.SequentialCell(
        nn.Conv2d(3, 4, 3, weight_init="zeros"),
        nn.BatchNorm2d(4, momentum=0.97),
        nn.Conv2d(4, 1, 1, weight_init="zeros"),
    )
    rng = np.random.default_rng(0)
    for parameter in network.trainable_params():
        parameter.set_data(Tensor(rng.standard_normal(parameter.shape).astype(np.float32)))
    values = {"optimizer": optimizer, "lr": lr, "nominal_batch": nominal_batch}
    config = TrainConfig(**values, max_epoch=4, warmup_steps=3, warmup_epochs=1, ema_tau=5.0)
    accumulation = build_accumulation(config, IMAGES, steps_per_epoch=5)
    return Engine(network, mean_loss(), config, build_schedule(config, steps_per_epoch=5), accumulation=accumulation)


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([7, step])
    return rng.integers(0, 256, (IMAGES, 3, 8, 8), np.uint8), rng.random(IMAGES).astype(np.float32)


def trained(engine: Any, steps: int) -> Any:
    while engine.step < steps:
        losses = engine.train(*batch(engine.step))
    return losses.asnumpy()


@pytest.mark.parametrize(("optimizer", "nominal", "updates"), [("sgd", 0, 14), ("adamw", 0, 14), ("adamw", 6, 6)])
@pytest.mark.parametrize("stopped", [5, 12])
def test_a_restored_engine_continues_bit_for_bit(optimizer: str, nominal: int, updates: int, stopped: int) -> None:
    """Also between two updates: with three batches an update, updates follow steps 1, 2, 4, 7, 10 and 13."""
    whole = small_engine(optimizer, nominal_batch=nominal)
    trained(whole, 14)
    first = small_engine(optimizer, nominal_batch=nominal)
    trained(first, stopped)
    state = first.capture({"train.lr": 1})
    assert ("gradients" in state.moments) is (nominal > 0)
    second = small_engine(optimizer, nominal_batch=nominal)
    second.restore(state)
    trained(second, 14)
    a, b = whole.capture({}), second.capture({})
    assert (a.step, a.ema_updates, a.optimizer_steps) == (b.step, b.ema_updates, b.optimizer_steps)
    assert (a.step, a.ema_updates, a.optimizer_steps) == (14, updates, updates)
    for part in ("weights", "ema", "moments"):
        arrays, others = getattr(a, part), getattr(b, part)
        assert arrays.keys() == others.keys() and arrays
        for name in arrays:
            np.testing.assert_array_equal(arrays[name], others[name], err_msg=f"{part} {name}")


def test_the_average_follows_weights_and_running_statistics() -> None:
    engine = small_engine()
    expected = {name: value.astype(np.float64) for name, value in engine.capture({}).weights.items()}
    assert "1.moving_variance" in expected
    for update in range(1, 5):
        trained(engine, update)
        share = 1 - ema_decay(update, 0.9999, 5.0)
        for name, value in engine.capture({}).weights.items():
            expected[name] += share * (value - expected[name])
    averaged = engine.averaged()
    for name, value in expected.items():
        np.testing.assert_allclose(averaged[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert not np.array_equal(averaged["1.moving_mean"], engine.capture({}).weights["1.moving_mean"])


def test_rates_change_without_a_new_compilation() -> None:
    engine = small_engine()
    compiled = [engine._steps._graph, engine._average]
    trained(engine, 12)
    assert [len(cell.compile_cache) for cell in compiled if cell is not None] == [1, 1]


def test_captured_arrays_do_not_change_when_training_goes_on() -> None:
    engine = small_engine()
    trained(engine, 2)
    state = engine.capture({})
    before = {name: value.copy() for name, value in state.weights.items()}
    trained(engine, 5)
    for name, value in before.items():
        np.testing.assert_array_equal(state.weights[name], value)
    assert not np.array_equal(engine.capture({}).weights["0.weight"], before["0.weight"])


def test_weights_of_another_network_are_refused_by_name() -> None:
    engine = small_engine()
    state = engine.capture({})
    del state.weights["0.weight"]
    with pytest.raises(InputError, match=r"0\.weight"):
        small_engine().restore(state)
