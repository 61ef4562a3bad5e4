"""The state of a training run: network, optimizer and average of weights, stepped, captured and restored together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from kubeyolo.arrays import AnyArray, Pixels
from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.errors import InputError
from kubeyolo.training.accumulation import Accumulation
from kubeyolo.training.checkpoints import Arrays, TrainingState
from kubeyolo.training.compilations import Compilations
from kubeyolo.training.compile_cache import GraphStore, stored
from kubeyolo.training.loss_scaling import LossScaling
from kubeyolo.training.optimizers import (
    ParameterGroups,
    build_optimizer,
    group_parameters,
    moment_parameters,
    scalar_tensors,
)
from kubeyolo.training.scaled_step import ScaledAddGradients, ScaledTrainStep, ScaledUpdate
from kubeyolo.training.schedules import Schedule, ema_decay
from kubeyolo.training.step import (
    AddGradients,
    ForwardLoss,
    Steps,
    TrainStep,
    Update,
    UpdateAfterBatches,
    UpdateEveryBatch,
    flat,
)

ADDED = "gradients"
"""Name of the added gradients among the moments of a checkpoint."""


class WeightAverage(nn.Cell):
    """``average = decay · average + (1 − decay) · value`` for every floating-point parameter of a network.

    The averages are stored as one vector, which a separate graph updates. When the graph of the step updated each of
    some three hundred parameters with three kernels after the optimizer, this took an eighth of the time of a step on a
    CPU.

    Args:
        parameters: Weights and running statistics; the average starts at their values.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        super().__init__()
        # A cell that contains this cell puts its own name before the names of the parameters.
        self._shapes = {parameter.name: parameter.shape for parameter in parameters}
        self.values = ParameterTuple(parameters)
        vector = np.concatenate([parameter.asnumpy().reshape(-1) for parameter in parameters])
        self.average = Parameter(Tensor(vector), name="ema", requires_grad=False)
        self.subtract = ops.AssignSub()
        self.concat = ops.Concat(0)
        self.map = ops.HyperMap()

    def construct(self, share: Tensor) -> Tensor:
        """Move the average towards the values by ``share``, which is 1 − decay."""
        # Not a loop that adds each vector to a tuple: it would be compiled in a time that grows with the square of the
        # number of parameters, 14 s instead of 0.6 s for those of yolov5n.
        values = self.concat(self.map(flat, self.values))
        return self.subtract(self.average, (self.average - values) * share)

    def arrays(self) -> Arrays:
        """Return copies of the averages by the names of their parameters."""
        flat, arrays, start = self.average.asnumpy(), {}, 0
        for name, shape in self._shapes.items():
            end = start + int(np.prod(shape))
            arrays[name] = np.array(flat[start:end]).reshape(shape)
            start = end
        return arrays

    def load(self, arrays: Arrays) -> None:
        """Set the averages from arrays with the names and shapes of :meth:`arrays`."""
        flat = np.concatenate([arrays[name].reshape(-1) for name in self._shapes])
        self.average.set_data(Tensor(flat.astype(np.float32)))


class Engine:
    """Trains a network step by step.

    With a scaled loss the device decides which updates are skipped; ``updates`` and ``ema_updates`` include them.

    Args:
        network: The network, with the weights that training starts from.
        loss: Cell that maps (output of the network, labels) to (total, parts).
        config: Settings of optimizer, clipping, average and scaling of the loss.
        schedule: Rates of each step.
        reduce: Cell that sums gradients over processes, or None.
        average: Whether to keep an exponential moving average.
        accumulation: How many batches an update of the weights is computed from; None for one batch.
        store: Keeps compiled graphs on disk; None to compile in every process.

    Attributes:
        compilations: What MindSpore has compiled in this process.
    """

    def __init__(
        self,
        network: nn.Cell,
        loss: nn.Cell,
        config: TrainConfig,
        schedule: Schedule,
        reduce: Callable[..., Any] | None = None,
        average: bool = True,
        accumulation: Accumulation | None = None,
        store: GraphStore | None = None,
    ) -> None:
        self.network = network
        self.schedule = schedule
        self.step = 0
        self.updates = 0
        self.ema_updates = 0
        self.compilations = Compilations()
        self._config = config
        self._accumulation = accumulation or Accumulation(images=1)
        parameters = list(network.get_parameters())
        self._weights: dict[str, Parameter] = {parameter.name: parameter for parameter in parameters}
        groups = group_parameters(network)
        decay = config.weight_decay * self._accumulation.decay_factor
        config = config.model_copy(update={"weight_decay": decay})
        self._optimizer = build_optimizer(groups, config)
        self._average = WeightAverage(parameters) if average else None
        self._scaling = LossScaling(network, config, self._optimizer) if config.scaling != "none" else None
        self._store = store
        self._update_average = stored("average", self._average, store)
        forward = ForwardLoss(network, loss)
        forward.set_train(True)
        self._steps = self._build_steps(forward, groups, reduce)

    def _build_steps(self, forward: ForwardLoss, groups: ParameterGroups, reduce: Callable[..., Any] | None) -> Steps:
        clip, accumulation, scaling = self._config.grad_clip, self._accumulation, self._scaling
        if accumulation.batches == 1:
            step = (
                TrainStep(forward, groups, self._optimizer, clip, reduce)
                if scaling is None
                else ScaledTrainStep(forward, groups, self._optimizer, scaling, clip, reduce)
            )
            step.set_train(True)
            return UpdateEveryBatch(stored("step", step, self._store))
        add: AddGradients
        update: Update
        if scaling is None:
            add = AddGradients(forward, groups, reduce)
            update = Update(add, groups, self._optimizer, clip)
        else:
            add = ScaledAddGradients(forward, groups, scaling, reduce)
            update = ScaledUpdate(add, groups, self._optimizer, clip)
        add.set_train(True)
        compiled = stored("add", add, self._store), stored("update", update, self._store)
        return UpdateAfterBatches(*compiled, add.total, accumulation, getattr(forward.loss, "is_mean", False))

    def train(self, images: Pixels, labels: AnyArray) -> Tensor:
        """Train on one batch and return its losses, which the device may still be computing.

        A step that compiles a graph ends when the device has computed it.

        Returns:
            (P + 2,) total, parts, norm of the gradients; with a scaled loss also the columns of
            :data:`kubeyolo.training.finite.SCALED_COLUMNS`.
        """
        start = time.perf_counter()
        losses = self._train(images, labels)
        if self.compilations.count(*self._compiled()):
            losses.asnumpy()
            self.compilations.add(images.shape[-1], time.perf_counter() - start)
        return losses

    def _train(self, images: Pixels, labels: AnyArray) -> Tensor:
        losses, is_update = self._steps.train(self.step, Tensor(images), Tensor(labels), self._scalars())
        self.step += 1
        if is_update:
            self.updates += 1
            self.ema_updates += 1
            if self._average is not None:
                self._update_average(self._average_share())
        return losses

    def _compiled(self) -> tuple[int, int]:
        """Return the numbers of graphs that MindSpore has compiled: of a step, and others."""
        first, *others = self._steps.graphs()
        others += [] if self._average is None else [self._average]
        # MindSpore adds to this set of a cell when it compiles the cell, and looks compiled graphs up in it.
        return len(first.compile_cache), sum(len(cell.compile_cache) for cell in others)

    def _scalars(self) -> tuple[Tensor, ...]:
        """Return the scalars of the optimizer for the next step."""
        rates = self.schedule.at(self.step)
        if self._scaling is not None:
            return self._scaling.scalars(rates, self.updates + 1)
        return scalar_tensors(self._optimizer.scalars(rates, self.updates + 1))

    def _average_share(self) -> Tensor:
        """Return the share of the weights in the next update of their average."""
        if self._scaling is not None:
            return self._scaling.average_share(self.ema_updates)
        share = 1 - ema_decay(self.ema_updates, self._config.ema_decay, self._config.ema_tau)
        return Tensor(np.float32(share))

    @property
    def learning_rate(self) -> float:
        """Learning rate of the decayed weights at the last step."""
        return self.schedule.at(max(self.step - 1, 0)).weight

    def averaged(self) -> Arrays:
        """Return the average of weights and statistics, or the weights themselves if there is no average."""
        return self._average.arrays() if self._average else _arrays(self._weights)

    def capture(self, identity: dict[str, Any], code_digest: str = "") -> TrainingState:
        """Return the state that training continues from, without the history."""
        skipped = self._scaling.skipped if self._scaling else 0
        return TrainingState(
            step=self.step,
            identity=identity,
            weights=_arrays(self._weights),
            ema=self._average.arrays() if self._average else {},
            moments=self._moments(),
            ema_updates=self.ema_updates - skipped,
            optimizer_steps=self.updates - skipped,
            code_digest=code_digest,
            scaler=self._scaling.state() if self._scaling else {},
        )

    def common(self) -> dict[str, Arrays]:
        """Return the arrays that are equal in all processes: "weights", without running statistics, and "moments"."""
        trained = {name: parameter for name, parameter in self._weights.items() if parameter.requires_grad}
        return {"weights": _arrays(trained), "moments": self._moments()}

    def _moments(self) -> Arrays:
        """Return the moments of the optimizer, with the gradients that wait for an update."""
        moments, added = _arrays(moment_parameters(self._optimizer)), self._steps.added()
        return moments if added is None else {**moments, ADDED: np.array(added.asnumpy())}

    def restore(self, state: TrainingState) -> None:
        """Continue from a captured state.

        Raises:
            InputError: The state belongs to a different network or optimizer.
        """
        check_arrays(self._weights if self._average else {}, state.ema, "averages")
        load_parameters(self._weights, state.weights, "weights")
        if self._average:
            self._average.load(state.ema)
        moments = {name: array for name, array in state.moments.items() if name != ADDED}
        load_parameters(moment_parameters(self._optimizer), moments, "moments")
        added = state.moments.get(ADDED)
        self._steps.restore(state.step, None if added is None else Tensor(added))
        skipped = self._scaling.load(state.scaler) if self._scaling else 0
        self.step, self.updates = state.step, state.optimizer_steps + skipped
        self.ema_updates = state.ema_updates + skipped


def check_arrays(parameters: dict[str, Parameter], arrays: Arrays, what: str) -> None:
    """Check that each parameter has an array of its shape.

    Raises:
        InputError: A parameter has no array, an array has no parameter, or a shape differs.
    """
    different = sorted(parameters.keys() ^ arrays.keys())
    if different:
        raise InputError(f"the {what} belong to a different network: only one of the two has {different[0]!r}")
    for name, parameter in parameters.items():
        if parameter.shape != arrays[name].shape:
            raise InputError(
                f"the {what} belong to a different network: {name!r} is {arrays[name].shape}, not {parameter.shape}"
            )


def load_parameters(parameters: dict[str, Parameter], arrays: Arrays, what: str) -> None:
    """Set each parameter to the array of its name.

    Raises:
        InputError: A parameter has no array, an array has no parameter, or a shape differs.
    """
    check_arrays(parameters, arrays, what)
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(np.array(arrays[name], np.float32)))


def _arrays(parameters: dict[str, Parameter]) -> Arrays:
    # A copy: asnumpy may return the memory that the next step writes to.
    return {name: np.array(parameter.asnumpy()) for name, parameter in parameters.items()}
