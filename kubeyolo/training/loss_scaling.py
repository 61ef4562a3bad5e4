"""Scaling of the loss, so that small gradients do not vanish in float16 (https://arxiv.org/abs/1710.03740).

The loss is multiplied by a scale before gradients are taken, and the float32 gradients are divided by it. If a gradient
is infinite or NaN, the update is skipped: weights, moments, running statistics and averages stay as they are. The
device decides this by itself, so no step waits for its result.

A skipped update counts as a step of the schedule, whose rates are functions of the step. It does not count as an update
in the decay of the average and in the bias correction of AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from numpy.typing import NDArray

from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.training.optimizers import ADAM_BETA2, ADAM_EPS, Optimizer, scalar_tensors
from kubeyolo.training.schedules import Rates

INTERVAL = 2000
"""Number of updates in a row without an overflow after which a dynamic scale is doubled."""

LOWEST, HIGHEST = 1.0, 2.0**24
"""Bounds of a dynamic scale."""

STATISTICS = ("moving_mean", "moving_variance")
"""Last parts of the names of running statistics."""

_STORED = ("scale", "good", "skipped", "stuck", "overflows")


class Scaler(nn.Cell):
    """The scale of the loss, and counts of the updates so far; all values are float32 scalars on the device.

    A dynamic scale is halved after an overflow, and doubled after :data:`INTERVAL` updates without an overflow.

    Args:
        value: The scale at the start.
        is_dynamic: Whether the scale changes.

    Attributes:
        scale: The scale of the next batch.
        good: Updates since the scale changed.
        skipped: Skipped updates since the start of the training.
        stuck: Skipped updates in a row whose scale could not be lowered.
        overflows: Batches with an overflow among those that wait for an update.
        is_applied: 1 if the last update was applied, 0 if it was skipped.
    """

    def __init__(self, value: float, is_dynamic: bool) -> None:
        super().__init__()
        self.is_dynamic = is_dynamic
        self.scale = _scalar("scale", value)
        self.good = _scalar("good", 0.0)
        self.skipped = _scalar("skipped", 0.0)
        self.stuck = _scalar("stuck", 0.0)
        self.overflows = _scalar("overflows", 0.0)
        self.is_applied = _scalar("is_applied", 1.0)
        self.assign = ops.Assign()

    def construct(self, is_finite: Tensor) -> Tensor:
        """Count an update, and change the scale.

        Args:
            is_finite: Whether all gradients of the update are finite; a bool scalar.

        Returns:
            (3,) the new ``scale``, ``skipped`` and ``stuck``.
        """
        is_applied = is_finite.astype(ms.float32)
        is_skipped = 1.0 - is_applied
        scale, good, stuck = self.scale * 1.0, (self.good + 1.0) * is_applied, self.stuck + 1.0
        if self.is_dynamic:
            stuck = self.stuck + (scale <= LOWEST).astype(ms.float32)
            is_grown = (good >= INTERVAL).astype(ms.float32)
            factor = is_applied + 0.5 * is_skipped + is_grown
            scale = ops.clamp(scale * factor, LOWEST, HIGHEST)
            good = good * (1.0 - is_grown)
        skipped, stuck = self.skipped + is_skipped, stuck * is_skipped
        done = (
            self.assign(self.scale, scale),
            self.assign(self.good, good),
            self.assign(self.skipped, skipped),
            self.assign(self.stuck, stuck),
            self.assign(self.is_applied, is_applied),
        )
        return ops.depend(ops.stack((scale, skipped, stuck)), done)


class Statistics(nn.Cell):
    """The running statistics of a network as they were after its last batch without an overflow.

    Args:
        parameters: The running statistics; at least one.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        super().__init__()
        self.values = ParameterTuple(parameters)
        self.saved = Parameter(Tensor(self._flat()), name="saved_statistics", requires_grad=False)
        self.assign = ops.Assign()

    def construct(self) -> Tensor:
        """Save the statistics."""
        parts: tuple[Tensor, ...] = ()
        for value in self.values:
            parts += (value.reshape(-1),)
        return self.assign(self.saved, ops.concat(parts, 0))

    def restore(self) -> Tensor:
        """Set the statistics to the saved statistics."""
        done: tuple[Tensor, ...] = ()
        start = 0
        for value in self.values:
            done += (self.assign(value, ops.slice(self.saved, (start,), (value.size,)).reshape(value.shape)),)
            start += value.size
        return ops.depend(self.saved, done)

    def reset(self) -> None:
        """Save the statistics that a checkpoint has set."""
        self.saved.set_data(Tensor(self._flat()))

    def _flat(self) -> NDArray[np.float32]:
        return np.concatenate([value.asnumpy().reshape(-1) for value in self.values])


class AverageShare(nn.Cell):
    """The share of the weights in an update of their moving average; 0 after a skipped update.

    It is one minus :func:`kubeyolo.training.schedules.ema_decay`, of the number of updates that were not skipped.

    Args:
        scaler: Counts the skipped updates.
        decay: Decay of the average.
        tau: Time constant of the rise of the decay, in updates.
    """

    def __init__(self, scaler: Scaler, decay: float, tau: float) -> None:
        super().__init__()
        self.skipped, self.is_applied = scaler.skipped, scaler.is_applied
        self.least, self.decay, self.tau = 1.0 - decay, decay, tau

    def construct(self, updates: Tensor) -> Tensor:
        """Return the share after a number of updates, in which the skipped updates are included."""
        rest = ops.exp((self.skipped - updates) / self.tau)
        return self.is_applied * (self.least + self.decay * rest)


class AdamScalars(nn.Cell):
    """The scalars of :meth:`kubeyolo.training.optimizers.AdamW.scalars`, corrected by updates that were not skipped.

    Args:
        scaler: Counts the skipped updates.
        config: Settings of the optimizer.
    """

    def __init__(self, scaler: Scaler, config: TrainConfig) -> None:
        super().__init__()
        self.skipped = scaler.skipped
        self.decay = config.weight_decay
        self.log_beta1 = math.log(config.momentum) if config.momentum else -math.inf
        self.log_beta2 = math.log(ADAM_BETA2)

    def construct(self, bias: Tensor, weight: Tensor, norm: Tensor, update: Tensor) -> tuple[Tensor, ...]:
        """Return the scalars of an update; ``update`` counts from 1, with the skipped updates before it."""
        count = update - self.skipped
        # 1 - beta^count, without cancellation.
        root = ops.sqrt(-ops.expm1(count * self.log_beta2))
        correction = root / -ops.expm1(count * self.log_beta1)
        return bias * correction, weight * correction, norm * correction, ADAM_EPS * root, self.decay / correction


class LossScaling:
    """The cells with which a training scales its loss, and what a checkpoint keeps of them.

    Args:
        network: The trained network.
        config: Settings of the training.
        optimizer: Its optimizer.

    Attributes:
        scaler: The scale, and the counts of updates.
        statistics: The running statistics of the network; None if it has none.
    """

    def __init__(self, network: nn.Cell, config: TrainConfig, optimizer: Optimizer) -> None:
        self.scaler = Scaler(config.grad_scaler_value, config.scaling == "dynamic")
        running = [each for each in network.get_parameters() if each.name.rsplit(".", 1)[-1] in STATISTICS]
        self.statistics = Statistics(running) if running else None
        self._share = AverageShare(self.scaler, config.ema_decay, config.ema_tau)
        self._optimizer = optimizer
        self._corrected = AdamScalars(self.scaler, config) if config.optimizer == "adamw" else None

    def scalars(self, rates: Rates, update: int) -> tuple[Tensor, ...]:
        """Return the scalars of the optimizer; ``update`` counts from 1, with the skipped updates before it."""
        if self._corrected is None:
            return scalar_tensors(self._optimizer.scalars(rates, update))
        return self._corrected(*scalar_tensors((rates.bias, rates.weight, rates.norm, update)))

    def average_share(self, updates: int) -> Tensor:
        """Return the share of the weights in their average after an update; ``updates`` includes the skipped ones."""
        return self._share(*scalar_tensors([updates]))

    @property
    def skipped(self) -> int:
        """Number of skipped updates; waits for the device."""
        return int(self.scaler.skipped.asnumpy())

    def state(self) -> dict[str, float]:
        """Return the values that a checkpoint keeps, by name."""
        return {name: float(getattr(self.scaler, name).asnumpy()) for name in _STORED}

    def load(self, state: dict[str, float]) -> int:
        """Continue from a checkpoint, whose weights the network has already; return the number of skipped updates."""
        for name, value in state.items():
            getattr(self.scaler, name).set_data(Tensor(np.float32(value)))
        if self.statistics is not None:
            self.statistics.reset()
        return self.skipped


def _scalar(name: str, value: float) -> Parameter:
    return Parameter(Tensor(np.float32(value)), name=f"scaler.{name}", requires_grad=False)
