"""SGD and AdamW inside the compiled step: rates are inputs, so that a changed rate does not recompile the graph.

Each kernel of MindSpore has an overhead of some 20 µs, and a detector has two hundred parameters: so operations are
fused into one primitive wherever possible.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.training.schedules import Rates

ADAM_BETA2 = 0.999
ADAM_EPS = 1e-8

_adam = ops.AdamWeightDecay()
_half_square = ops.L2Loss()

_squares = ops.MultitypeFuncGraph("squares")
_scaled = ops.MultitypeFuncGraph("scaled")
_sgd_step = ops.MultitypeFuncGraph("sgd_step")
_adam_step = ops.MultitypeFuncGraph("adam_step")


@_squares.register("Tensor")
def _half_sum_of_squares(gradient: Tensor) -> Tensor:
    return _half_square(gradient)


@_scaled.register("Tensor", "Tensor")
def _scale(scale: Tensor, gradient: Tensor) -> Tensor:
    return gradient * scale


@_sgd_step.register("Function", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor")
def _apply_sgd(
    primitive: Callable[..., Tensor],
    lr: Tensor,
    momentum: Tensor,
    weight: Tensor,
    velocity: Tensor,
    started: Tensor,
    gradient: Tensor,
) -> Tensor:
    return primitive(weight, gradient, lr, velocity, momentum, started)


@_adam_step.register("Tensor", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor")
def _apply_adam(
    lr: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    eps: Tensor,
    decay: Tensor,
    weight: Tensor,
    mean: Tensor,
    variance: Tensor,
    gradient: Tensor,
) -> Tensor:
    return _adam(weight, mean, variance, lr, beta1, beta2, eps, decay, gradient)


@dataclass(frozen=True)
class ParameterGroups:
    """The trainable parameters of a network, in the order in which gradients are taken.

    Attributes:
        bias: Biases of convolutions and of batch normalizations.
        weight: Weights of convolutions and dense layers, which decay.
        norm: Weights of batch normalizations.
    """

    bias: tuple[Parameter, ...]
    weight: tuple[Parameter, ...]
    norm: tuple[Parameter, ...]

    @property
    def all(self) -> ParameterTuple:
        """All parameters: biases, decayed weights, batch normalization weights."""
        return ParameterTuple(self.bias + self.weight + self.norm)


def group_parameters(network: nn.Cell) -> ParameterGroups:
    """Sort the trainable parameters of a network; running statistics are not trainable, so they are in no group."""
    groups: dict[str, list[Parameter]] = {"bias": [], "weight": [], "norm": []}
    for parameter in network.trainable_params():
        leaf = parameter.name.rsplit(".", 1)[-1]
        kind = "bias" if leaf in ("bias", "beta") else "norm" if parameter.ndim == 1 else "weight"
        groups[kind].append(parameter)
    return ParameterGroups(**{kind: tuple(parameters) for kind, parameters in groups.items()})


class GradientClip(nn.Cell):
    """Scales gradients so that their global norm is at most ``max_norm`` (https://arxiv.org/abs/1211.5063)."""

    def __init__(self, max_norm: float) -> None:
        super().__init__()
        self.max_norm = max_norm
        self.map = ops.HyperMap()
        self.add = ops.AddN()

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return the gradients and their norm before scaling."""
        norm = self.norm(gradients)
        return self.multiplied(gradients, self.factor(norm)), norm

    def norm(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Return the global norm of gradients; it is infinite or NaN if a gradient is."""
        return ops.sqrt(2.0 * self.add(self.map(_squares, gradients)))

    def factor(self, norm: Tensor) -> Tensor:
        """Return the factor of gradients with this norm, at most 1."""
        return ops.minimum(self.max_norm / (norm + 1e-6), Tensor(1.0, ms.float32))

    def multiplied(self, gradients: tuple[Tensor, ...], factor: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients times a factor."""
        return self.map(ops.partial(_scaled, factor), gradients)


class _ByGroup(nn.Cell):
    """An optimizer that updates each group of parameters separately; ``moments[:first]`` belong to the biases."""

    def __init__(self, groups: ParameterGroups) -> None:
        super().__init__()
        self.bias = ParameterTuple(groups.bias)
        self.weight = ParameterTuple(groups.weight)
        self.norm = ParameterTuple(groups.norm)
        self.first, self.last = len(groups.bias), len(groups.bias) + len(groups.weight)
        self.map = ops.HyperMap()


class Sgd(_ByGroup):
    """Stochastic gradient descent with momentum, optionally Nesterov's (https://arxiv.org/abs/1212.0901).

    ``velocity = momentum · velocity + gradient + decay · weight``, with decay only in the weight group. It is computed
    by ``ops.SGD``, because ``ops.ApplyMomentum`` ignores ``use_nesterov`` on a CPU.
    """

    moments: tuple[str, ...] = ("velocity",)

    def __init__(self, groups: ParameterGroups, config: TrainConfig) -> None:
        super().__init__(groups)
        self.velocity = _zeros_like(groups, "velocity")
        # Zero tells the primitive that a velocity exists already; the first velocity is zero, which is right.
        self.started = _zeros_like(groups, "started")
        self.sgd = ops.SGD(dampening=0.0, weight_decay=0.0, nesterov=config.nesterov)
        self.sgd_decaying = ops.SGD(dampening=0.0, weight_decay=config.weight_decay, nesterov=config.nesterov)

    def scalars(self, rates: Rates, step: int) -> tuple[float, ...]:
        """Return the scalars that ``construct`` reads at a step; steps count from 1."""
        return rates.bias, rates.weight, rates.norm, rates.momentum

    def construct(self, gradients: tuple[Tensor, ...], scalars: tuple[Tensor, ...]) -> Any:
        """Update the weights; ``gradients`` are in the order of ``ParameterGroups.all``."""
        bias_lr, weight_lr, norm_lr, momentum = scalars
        i, j = self.first, self.last
        velocity, started = self.velocity, self.started
        on_bias = ops.partial(_sgd_step, self.sgd, bias_lr, momentum)
        on_weight = ops.partial(_sgd_step, self.sgd_decaying, weight_lr, momentum)
        on_norm = ops.partial(_sgd_step, self.sgd, norm_lr, momentum)
        return (
            self.map(on_bias, self.bias, velocity[:i], started[:i], gradients[:i]),
            self.map(on_weight, self.weight, velocity[i:j], started[i:j], gradients[i:j]),
            self.map(on_norm, self.norm, velocity[j:], started[j:], gradients[j:]),
        )


class AdamW(_ByGroup):
    """Adam with decoupled weight decay (https://arxiv.org/abs/1711.05101), where beta1 is the configured momentum.

    The fused primitive has no bias correction: the learning rate, eps and decay that it receives include the
    correction.
    """

    moments: tuple[str, ...] = ("mean", "variance")

    def __init__(self, groups: ParameterGroups, config: TrainConfig) -> None:
        super().__init__(groups)
        self.mean = _zeros_like(groups, "mean")
        self.variance = _zeros_like(groups, "variance")
        self.beta1 = Tensor(config.momentum, ms.float32)
        self.beta2 = Tensor(ADAM_BETA2, ms.float32)
        self.no_decay = Tensor(0.0, ms.float32)
        self.decay_rate = config.weight_decay
        self.momentum = config.momentum

    def scalars(self, rates: Rates, step: int) -> tuple[float, ...]:
        """Return the scalars that ``construct`` reads at a step; steps count from 1."""
        root = math.sqrt(1 - ADAM_BETA2**step)
        correction = root / (1 - self.momentum**step)
        corrected = (rates.bias * correction, rates.weight * correction, rates.norm * correction)
        return *corrected, ADAM_EPS * root, self.decay_rate / correction

    def construct(self, gradients: tuple[Tensor, ...], scalars: tuple[Tensor, ...]) -> Any:
        """Update the weights; ``gradients`` are in the order of ``ParameterGroups.all``."""
        bias_lr, weight_lr, norm_lr, eps, decay = scalars
        i, j = self.first, self.last
        beta1, beta2, none = self.beta1, self.beta2, self.no_decay
        mean, variance = self.mean, self.variance
        on_bias = ops.partial(_adam_step, bias_lr, beta1, beta2, eps, none)
        on_weight = ops.partial(_adam_step, weight_lr, beta1, beta2, eps, decay)
        on_norm = ops.partial(_adam_step, norm_lr, beta1, beta2, eps, none)
        return (
            self.map(on_bias, self.bias, mean[:i], variance[:i], gradients[:i]),
            self.map(on_weight, self.weight, mean[i:j], variance[i:j], gradients[i:j]),
            self.map(on_norm, self.norm, mean[j:], variance[j:], gradients[j:]),
        )


Optimizer = Sgd | AdamW


def build_optimizer(groups: ParameterGroups, config: TrainConfig) -> Optimizer:
    """Return the optimizer of a configuration for the parameters of a network."""
    return AdamW(groups, config) if config.optimizer == "adamw" else Sgd(groups, config)


def moment_parameters(optimizer: Optimizer) -> dict[str, Parameter]:
    """Return the moments of an optimizer by ``<moment>.<parameter name>``."""
    return {moment.name: moment for name in optimizer.moments for moment in getattr(optimizer, name)}


def _zeros_like(groups: ParameterGroups, prefix: str) -> ParameterTuple:
    zeros = {f"{prefix}.{parameter.name}": Tensor(np.zeros(parameter.shape, np.float32)) for parameter in groups.all}
    return ParameterTuple([Parameter(tensor, name=name, requires_grad=False) for name, tensor in zeros.items()])


def scalar_tensors(values: Sequence[float]) -> tuple[Tensor, ...]:
    """Return each value as a float32 tensor: a Python number would be compiled into the graph."""
    return tuple(Tensor(np.float32(value)) for value in values)
