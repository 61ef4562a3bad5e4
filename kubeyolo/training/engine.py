"""The state of a training run: network, optimizer and average, stepped, captured and restored together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn
from numpy.typing import NDArray

from kubeyolo.arrays import Pixels
from kubeyolo.config.schema import TrainConfig
from kubeyolo.errors import InputError
from kubeyolo.training.checkpoints import Arrays, TrainingState
from kubeyolo.training.ema import WeightAverage
from kubeyolo.training.optimizers import build_optimizer, group_parameters, moment_parameters, scalar_tensors
from kubeyolo.training.schedules import Schedule, ema_decay
from kubeyolo.training.step import ForwardLoss, TrainStep


class Engine:
    """Trains a network step by step.

    Args:
        network: The network, with the weights that training starts from.
        loss: Cell from (output of the network, labels) to (total, parts).
        config: Optimizer, clipping and average.
        schedule: Rates of each step.
        reduce: Cell that sums gradients over processes, or None.
        average: Whether to keep an exponential moving average.
    """

    def __init__(
        self,
        network: nn.Cell,
        loss: nn.Cell,
        config: TrainConfig,
        schedule: Schedule,
        reduce: Callable[..., Any] | None = None,
        average: bool = True,
    ) -> None:
        self.network = network
        self.schedule = schedule
        self.step = 0
        self.ema_updates = 0
        self._config = config
        parameters = list(network.get_parameters())
        self._weights: dict[str, Parameter] = {parameter.name: parameter for parameter in parameters}
        groups = group_parameters(network)
        self._optimizer = build_optimizer(groups, config)
        self._average = WeightAverage(parameters) if average else None
        forward = ForwardLoss(network, loss)
        forward.set_train(True)
        self._train = TrainStep(forward, groups, self._optimizer, config.grad_clip, reduce)
        self._train.set_train(True)

    def train(self, images: Pixels, labels: NDArray[Any]) -> Tensor:
        """Train on one batch and return (total, parts, gradient norm), which may not be computed yet."""
        rates = self.schedule.at(self.step)
        scalars = scalar_tensors(self._optimizer.scalars(rates, self.step + 1))
        losses = self._train(Tensor(images), Tensor(labels), *scalars)
        self.step += 1
        self.ema_updates += 1
        if self._average is not None:
            share = 1 - ema_decay(self.ema_updates, self._config.ema_decay, self._config.ema_tau)
            self._average(Tensor(np.float32(share)))
        return losses

    @property
    def learning_rate(self) -> float:
        """Learning rate of the decayed weights at the last step."""
        return self.schedule.at(max(self.step - 1, 0)).weight

    def averaged(self) -> Arrays:
        """Return the average of weights and statistics, or the weights themselves when none is kept."""
        return self._average.arrays() if self._average else _arrays(self._weights)

    def capture(self, identity: dict[str, Any], code_digest: str = "") -> TrainingState:
        """Return all that training continues from, but the history."""
        return TrainingState(
            step=self.step,
            identity=identity,
            weights=_arrays(self._weights),
            ema=self._average.arrays() if self._average else {},
            moments=_arrays(moment_parameters(self._optimizer)),
            ema_updates=self.ema_updates,
            optimizer_steps=self.step,
            code_digest=code_digest,
        )

    def common(self) -> dict[str, Arrays]:
        """Return what is the same in all processes, as "weights" and "moments": all but running statistics."""
        trained = {name: parameter for name, parameter in self._weights.items() if parameter.requires_grad}
        return {"weights": _arrays(trained), "moments": _arrays(moment_parameters(self._optimizer))}

    def restore(self, state: TrainingState) -> None:
        """Continue from a captured state.

        Raises:
            InputError: The state is of another network or optimizer.
        """
        check_arrays(self._weights if self._average else {}, state.ema, "averages")
        load_parameters(self._weights, state.weights, "weights")
        if self._average:
            self._average.load(state.ema)
        load_parameters(moment_parameters(self._optimizer), state.moments, "moments")
        self.step = state.step
        self.ema_updates = state.ema_updates


def check_arrays(parameters: dict[str, Parameter], arrays: Arrays, what: str) -> None:
    """Check that there is an array of the shape of each parameter.

    Raises:
        InputError: A name is missing on either side, or a shape differs.
    """
    different = sorted(parameters.keys() ^ arrays.keys())
    if different:
        raise InputError(f"the {what} are of another network: {different[0]!r} is on one side only")
    for name, parameter in parameters.items():
        if parameter.shape != arrays[name].shape:
            raise InputError(
                f"the {what} are of another network: {name!r} is {arrays[name].shape}, not {parameter.shape}"
            )


def load_parameters(parameters: dict[str, Parameter], arrays: Arrays, what: str) -> None:
    """Set each parameter to the array of its name.

    Raises:
        InputError: A name is missing on either side, or a shape differs.
    """
    check_arrays(parameters, arrays, what)
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(np.array(arrays[name], np.float32)))


def _arrays(parameters: dict[str, Parameter]) -> Arrays:
    # A copy: what asnumpy returns may be the memory that the next step writes to.
    return {name: np.array(parameter.asnumpy()) for name, parameter in parameters.items()}
