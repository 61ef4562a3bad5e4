from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.training.schedules import Rates, ema_decay
from tests import golden

pytestmark = pytest.mark.usefixtures("mindspore_ready")

RATES = Rates(bias=0.3, weight=0.1, norm=0.2, momentum=0.9)
STEPS = 4


def small_network() -> Any:
    from mindspore import Tensor, nn

    rng = np.random.default_rng(0)
    network = nn.SequentialCell(
        nn.Conv2d(3, 4, 3, has_bias=True, weight_init="zeros", bias_init="zeros"), nn.BatchNorm2d(4, momentum=0.97)
    )
    for parameter in network.trainable_params():
        parameter.set_data(Tensor(rng.standard_normal(parameter.shape).astype(np.float32)))
    return network


def run(network: Any, config: TrainConfig, gradients: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Step the optimizer in graph mode with given gradients; return all weights in the order of the groups."""
    from mindspore import Tensor

    from kubeyolo.training.optimizers import build_optimizer, group_parameters, scalar_tensors

    groups = group_parameters(network)
    optimizer = build_optimizer(groups, config)
    stepped = Stepped(optimizer)
    for step, values in enumerate(gradients, 1):
        tensors = [Tensor(value) for value in values]
        stepped.cell(scalar_tensors(optimizer.scalars(RATES, step)), tensors)
    return [parameter.asnumpy() for parameter in groups.all]


class Stepped:
    def __init__(self, optimizer: Any) -> None:
        from mindspore import mutable

        self._optimizer, self._mutable = optimizer, mutable

    def cell(self, scalars: Any, gradients: Any) -> None:
        self._optimizer(self._mutable(tuple(gradients)), self._mutable(scalars))


def drawn(network: Any) -> tuple[list[np.ndarray], list[list[np.ndarray]], list[str]]:
    from kubeyolo.training.optimizers import group_parameters

    groups = group_parameters(network)
    rng = np.random.default_rng(1)
    weights = [np.array(parameter.asnumpy()) for parameter in groups.all]
    gradients = [[rng.standard_normal(w.shape).astype(np.float32) for w in weights] for _ in range(STEPS)]
    kinds = [kind for kind in ("bias", "weight", "norm") for _ in getattr(groups, kind)]
    return weights, gradients, kinds


def test_parameters_are_grouped_and_running_statistics_are_in_no_group() -> None:
    from kubeyolo.training.optimizers import group_parameters

    groups = group_parameters(small_network())
    names = {kind: [p.name for p in getattr(groups, kind)] for kind in ("bias", "weight", "norm")}
    assert names == {"bias": ["0.bias", "1.beta"], "weight": ["0.weight"], "norm": ["1.gamma"]}


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_follows_its_formula_and_only_weights_decay(nesterov: bool) -> None:
    network = small_network()
    weights, gradients, kinds = drawn(network)
    decay = 0.05
    got = run(network, TrainConfig(optimizer="sgd", nesterov=nesterov, weight_decay=decay), gradients)
    for i, (weight, kind) in enumerate(zip(weights, kinds, strict=True)):
        value, velocity = weight.astype(np.float64), np.zeros_like(weight, np.float64)
        for step in gradients:
            gradient = step[i] + (decay * value if kind == "weight" else 0)
            velocity = RATES.momentum * velocity + gradient
            value -= getattr(RATES, kind) * (gradient + RATES.momentum * velocity if nesterov else velocity)
        np.testing.assert_allclose(got[i], value, rtol=2e-5, atol=2e-6)


def test_adamw_follows_its_formula_with_bias_correction() -> None:
    network = small_network()
    weights, gradients, kinds = drawn(network)
    decay, beta1, beta2, eps = 0.05, 0.9, 0.999, 1e-8
    got = run(network, TrainConfig(optimizer="adamw", momentum=beta1, weight_decay=decay), gradients)
    for i, (weight, kind) in enumerate(zip(weights, kinds, strict=True)):
        value = weight.astype(np.float64)
        mean, variance = np.zeros_like(value), np.zeros_like(value)
        lr = getattr(RATES, kind)
        for t, step in enumerate(gradients, 1):
            gradient = step[i].astype(np.float64)
            mean = beta1 * mean + (1 - beta1) * gradient
            variance = beta2 * variance + (1 - beta2) * gradient**2
            value *= 1 - lr * (decay if kind == "weight" else 0)
            value -= lr * (mean / (1 - beta1**t)) / (np.sqrt(variance / (1 - beta2**t)) + eps)
        np.testing.assert_allclose(got[i], value, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("max_norm", "scale"), [(1.0, 1 / 13), (100.0, 1.0)])
def test_gradients_are_clipped_by_their_global_norm(max_norm: float, scale: float) -> None:
    from mindspore import Tensor, mutable

    from kubeyolo.training.optimizers import GradientClip

    gradients = [np.array([3.0, 4.0], np.float32), np.array([[12.0]], np.float32)]
    clipped, norm = GradientClip(max_norm)(mutable(tuple(Tensor(g) for g in gradients)))
    assert float(norm.asnumpy()) == pytest.approx(13.0)
    for got, gradient in zip(clipped, gradients, strict=True):
        np.testing.assert_allclose(got.asnumpy(), gradient * scale, rtol=1e-5)


@pytest.mark.parametrize("case", golden.case_parameters(golden.array_files("schedule"), "schedule"))
def test_golden_trace_of_the_average_is_matched(case: str) -> None:
    from mindspore import Tensor, nn

    from kubeyolo.training.engine import WeightAverage

    assert case, f"{golden.golden_folder()} holds no schedule"
    rows = golden.read_json("schedule", f"{case}.json")["ema_trace"]["rows"]
    norm = nn.BatchNorm2d(1)
    average = WeightAverage([norm.gamma, norm.moving_mean])
    for update, row in enumerate(rows):
        norm.gamma.set_data(Tensor(np.float32([update])))
        norm.moving_mean.set_data(Tensor(np.float32([update / 2])))
        average(Tensor(np.float32(1 - ema_decay(update + 1, 0.9999, 2000.0))))
        got = [float(array[0]) for array in average.arrays().values()]
        assert got == pytest.approx(row, rel=1e-6, abs=1e-7)
