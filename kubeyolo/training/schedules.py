"""Learning rate, momentum and EMA decay as pure functions of the step.

Epochs and steps count from 0. A step is one batch of all processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from kubeyolo.config.training_schema import TrainConfig

Factor = Callable[[int], float]
"""Maps an epoch to its fraction of the peak learning rate."""

WarmUp = Literal["one_cycle", "linear", "zero"]


def linear_factor(epoch: int, epochs: int, final: float) -> float:
    """Fall linearly from 1 at epoch 0 to ``final`` at ``epochs``."""
    return (1 - epoch / epochs) * (1 - final) + final


def cosine_factor(epoch: int, epochs: int, final: float) -> float:
    """Fall along half a cosine from 1 at epoch 0 to ``final`` at ``epochs`` (https://arxiv.org/abs/1812.01187)."""
    return (1 - math.cos(epoch * math.pi / epochs)) / 2 * (final - 1) + 1


def annealed_factor(epoch: int, t_max: int, lowest: float) -> float:
    """Fall along half a cosine from 1 at epoch 0 to ``lowest`` at ``t_max`` (https://arxiv.org/abs/1608.03983).

    The cosine goes on after ``t_max``: the factor rises again.
    """
    return lowest + (1 - lowest) * (1 + math.cos(math.pi * epoch / t_max)) / 2


def exponential_factor(epoch: int, milestones: Sequence[int], gamma: float) -> float:
    """Multiply by ``gamma`` at each of the epochs ``milestones``."""
    return gamma ** sum(epoch >= milestone for milestone in milestones)


def ema_decay(update: int, decay: float, tau: float) -> float:
    """Return the share of the old average at an update (updates count from 1): ``decay · (1 − exp(−update / tau))``."""
    return decay * (1 - math.exp(-update / tau))


def warmup_steps(steps_per_epoch: int, epochs: float, least: int) -> int:
    """Return the number of steps in ``epochs`` of warm-up, at least ``least``; with 0 epochs there is no warm-up."""
    return max(round(epochs * steps_per_epoch), least) if epochs > 0 else 0


def interpolate(step: int, steps: int, start: float, end: float) -> float:
    """Return the value at ``step`` of a line from ``start`` at step 0 to ``end`` at ``steps``; after that, ``end``."""
    if step >= steps:
        return end
    return start + (end - start) / steps * step


@dataclass(frozen=True)
class Rates:
    """Inputs of the optimizer at one step: the learning rates of the three parameter groups, and the momentum."""

    bias: float
    weight: float
    norm: float
    momentum: float


@dataclass(frozen=True)
class Schedule:
    """A warm-up step by step, then one factor an epoch.

    Warm-ups: "one_cycle" (YOLOv5, Scaled-YOLOv4) rises from 0 at step 0 to the rate of the epoch, biases from a rate of
    their own, and raises the momentum. "linear" (MindSpore model zoo) rises by ``lr / warmup`` with every step, the
    first step included, to ``lr``. "zero" (the model zoo's YOLOv3 for quantization) keeps all rates at 0.

    After the warm-up YOLOv5 and Scaled-YOLOv4 lag by one epoch: epoch ``e`` trains with the factor of ``e − 1``, and
    the epoch in which the warm-up ends keeps its own factor until it ends.

    Attributes:
        steps_per_epoch: Steps of one epoch.
        lr: Peak learning rate.
        factor: Fraction of the peak for each epoch.
        warmup: Number of warm-up steps; with "one_cycle" the step with this number still belongs to the warm-up.
        kind: Kind of the warm-up.
        warmup_bias_lr: Learning rate of the biases at step 0 of "one_cycle"; the other groups start at 0.
        momentum: Momentum after the warm-up.
        warmup_momentum: Momentum at step 0 of "one_cycle"; the other warm-ups have the final momentum.
        lag: Epochs by which the factor lags after the warm-up.
    """

    steps_per_epoch: int
    lr: float
    factor: Factor
    warmup: int = 0
    kind: WarmUp = "one_cycle"
    warmup_bias_lr: float = 0.0
    momentum: float = 0.937
    warmup_momentum: float = 0.8
    lag: int = 1

    def at(self, step: int) -> Rates:
        """Return the rates of a step."""
        epoch = step // self.steps_per_epoch
        if self.kind != "one_cycle" and step < self.warmup:
            lr = 0.0 if self.kind == "zero" else interpolate(step + 1, self.warmup, 0.0, self.lr)
            return Rates(bias=lr, weight=lr, norm=lr, momentum=self.momentum)
        if self.kind == "one_cycle" and self.warmup and step <= self.warmup:
            target = self.lr * self.factor(epoch)
            rest = interpolate(step, self.warmup, 0.0, target)
            return Rates(
                bias=interpolate(step, self.warmup, self.warmup_bias_lr, target),
                weight=rest,
                norm=rest,
                momentum=interpolate(step, self.warmup, self.warmup_momentum, self.momentum),
            )
        ended_here = bool(self.warmup) and epoch == self.warmup // self.steps_per_epoch
        lr = self.lr * self.factor(epoch if ended_here else max(epoch - self.lag, 0))
        return Rates(bias=lr, weight=lr, norm=lr, momentum=self.momentum)


def build_schedule(config: TrainConfig, steps_per_epoch: int) -> Schedule:
    """Return the schedule of a training configuration.

    The model zoo's schedulers change the rate exactly at their epochs; YOLOv5's and Scaled-YOLOv4's have a lag.
    """
    epochs, final = config.max_epoch, config.lr_final

    def factor(epoch: int) -> float:
        if config.lr_scheduler == "exponential":
            return exponential_factor(epoch, config.lr_epochs, config.lr_gamma)
        if is_annealed(config):
            return annealed_factor(epoch, config.t_max, config.eta_min / config.lr)
        shape = linear_factor if config.lr_scheduler == "linear" else cosine_factor
        return shape(epoch, epochs, final)

    return Schedule(
        steps_per_epoch=steps_per_epoch,
        lr=config.lr,
        factor=factor,
        warmup=warmup_steps(steps_per_epoch, config.warmup_epochs, config.warmup_steps),
        kind=config.warmup,
        # AdamW moves every weight by about the learning rate: a bias rate above the peak would be a jump.
        warmup_bias_lr=config.warmup_bias_lr if config.optimizer == "sgd" else 0.0,
        momentum=config.momentum,
        warmup_momentum=config.warmup_momentum,
        lag=0 if config.lr_scheduler == "exponential" or is_annealed(config) else 1,
    )


def is_annealed(config: TrainConfig) -> bool:
    """Tell whether the rate falls along the cosine of ``t_max`` epochs, independent of the length of the training."""
    return config.lr_scheduler == "cosine_annealing" and config.t_max > 0


def idle_keys(config: TrainConfig) -> set[str]:
    """Return which of the keys ``eta_min``, ``t_max`` and ``warmup`` do not change any rate."""
    idle = set() if is_annealed(config) else {"train.eta_min", "train.t_max"}
    return idle if config.warmup_epochs > 0 else {*idle, "train.warmup"}
