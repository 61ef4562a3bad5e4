"""One training step as one compiled graph: from uint8 images to updated weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from kubeyolo.training.accumulation import Accumulation
from kubeyolo.training.optimizers import GradientClip, Optimizer, ParameterGroups


class ForwardLoss(nn.Cell):
    """Network and loss: maps uint8 images and labels to the total loss and its parts.

    Args:
        network: Maps images (N, 3, H, W) in [0, 1] to the input of the loss.
        loss: Maps this input and the labels to (total scalar, parts (P,)).
    """

    def __init__(self, network: nn.Cell, loss: nn.Cell) -> None:
        super().__init__()
        self.network = network
        self.loss = loss

    def construct(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss to differentiate, and its parts."""
        x = images.astype(ms.float32) * (1.0 / 255.0)
        return self.loss(self.network(x), labels)


flat = ops.MultitypeFuncGraph("flat")
"""Turns an array into a vector; with ``ops.HyperMap``, each array of a tuple."""

_cut = ops.MultitypeFuncGraph("cut")
_slice = ops.Slice()


@flat.register("Tensor")
def _flatten(gradient: Tensor) -> Tensor:
    return gradient.reshape(-1)


@_cut.register("Tensor", "Number", "Tensor")
def _cut_out(total: Tensor, offset: int, like: Tensor) -> Tensor:
    return _slice(total, (offset,), (like.size,)).reshape(like.shape)


def _offsets(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return where each array of a shape begins in the vector of all of them."""
    sizes = [math.prod(shape) for shape in shapes]
    return tuple(itertools.accumulate(sizes[:-1], initial=0))


class GradientSum(nn.Cell):
    """Sums gradients over all processes in one exchange: on a CPU each exchange has a large overhead.

    Args:
        shapes: Shapes of the gradients.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.offsets = _offsets(shapes)
        self.reduce = ops.AllReduce(ops.ReduceOp.SUM)
        self.concat = ops.Concat(0)
        self.map = ops.HyperMap()

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the sums, in the shapes of the gradients."""
        total = self.reduce(self.concat(self.map(flat, gradients)))
        return self.map(ops.partial(_cut, total), self.offsets, gradients)


class VectorGather(nn.Cell):
    """Gathers a vector of each process."""

    def __init__(self, world: int) -> None:
        super().__init__()
        self.world = world
        self.gather = ops.AllGather()

    def construct(self, vector: Tensor) -> Tensor:
        """Map (V,) of each process to (world, V), the same in all processes."""
        return self.gather(vector).reshape(self.world, -1)


class TrainStep(nn.Cell):
    """Forward, gradients, sum over processes, clipping, optimizer.

    Args:
        forward: Network and loss, in training mode.
        groups: Trainable parameters.
        optimizer: Optimizer of the same groups.
        grad_clip: Largest global norm of the gradients; 0 for no clipping.
        reduce: Cell that sums the gradients of all processes, or None for one process.
    """

    def __init__(
        self,
        forward: nn.Cell,
        groups: ParameterGroups,
        optimizer: Optimizer,
        grad_clip: float = 0.0,
        reduce: Callable[..., tuple[Tensor, ...]] | None = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        # A graph that is loaded from disk updates only parameters of cells that its own cell contains.
        self.forward = forward
        self.gradients = ops.value_and_grad(forward, None, groups.all, has_aux=True)
        self.optimizer = optimizer
        self.reduce = reduce
        self.clip = GradientClip(grad_clip) if grad_clip > 0 else None

    def construct(self, images: Tensor, labels: Tensor, *scalars: Tensor) -> Tensor:
        """Train on one batch.

        Args:
            images: (N, 3, H, W) uint8.
            labels: Labels for the loss.
            *scalars: Values of ``Optimizer.scalars``. They are not one tuple, because its tensors would be compiled as
                constants.

        Returns:
            (P + 2,) total loss, its parts, and the norm of the gradients (0 when they are not clipped).
        """
        (total, parts), gradients = self.gradients(images, labels)
        if self.reduce is not None:
            gradients = self.reduce(gradients)
        norm = ops.zeros_like(total)
        if self.clip is not None:
            gradients, norm = self.clip(gradients)
        done = self.optimizer(gradients, scalars)
        losses = ops.concat((total.reshape(1), parts, norm.reshape(1)), 0)
        return ops.depend(losses, done)


class AddGradients(nn.Cell):
    """Forward, gradients, sum over processes; the gradients are added to those of the batches before.

    The sum is one vector, which is the same in all processes.

    Args:
        forward: Network and loss, in training mode.
        groups: Trainable parameters.
        reduce: Cell that sums the gradients of all processes, or None for one process.
    """

    def __init__(
        self,
        forward: nn.Cell,
        groups: ParameterGroups,
        reduce: Callable[..., tuple[Tensor, ...]] | None = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        # For graphs that are loaded from disk, as in TrainStep.
        self.forward = forward
        self.gradients = ops.value_and_grad(forward, None, groups.all, has_aux=True)
        self.reduce = reduce
        size = sum(math.prod(parameter.shape) for parameter in groups.all)
        self.total = Parameter(Tensor(np.zeros(size, np.float32)), name="gradients", requires_grad=False)
        self.concat = ops.Concat(0)
        self.map = ops.HyperMap()
        self.assign = ops.Assign()

    def construct(self, images: Tensor, labels: Tensor, keep: Tensor) -> Tensor:
        """Add the gradients of one batch.

        Args:
            images: (N, 3, H, W) uint8.
            labels: Labels for the loss.
            keep: Factor of the sum so far: 0 for the first batch of an update, then 1.

        Returns:
            (P + 2,) total loss, its parts, and 0 in place of the norm of the gradients.
        """
        (total, parts), gradients = self.gradients(images, labels)
        if self.reduce is not None:
            gradients = self.reduce(gradients)
        done = self.assign(self.total, self.total * keep + self.joined(gradients))
        losses = ops.concat((total.reshape(1), parts, ops.zeros_like(total).reshape(1)), 0)
        return ops.depend(losses, done)

    def joined(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Return the gradients as one vector."""
        return self.concat(self.map(flat, gradients))


class Update(nn.Cell):
    """Clipping and optimizer, on the added gradients of several batches.

    Args:
        added: The cell that adds them.
        groups: Trainable parameters.
        optimizer: Optimizer of the same groups.
        grad_clip: Largest global norm of the gradients; 0 for no clipping.
    """

    def __init__(
        self, added: AddGradients, groups: ParameterGroups, optimizer: Optimizer, grad_clip: float = 0.0
    ) -> None:
        super().__init__()
        self.total = added.total
        self.like = groups.all
        self.offsets = _offsets([parameter.shape for parameter in groups.all])
        self.optimizer = optimizer
        self.clip = GradientClip(grad_clip) if grad_clip > 0 else None
        self.map = ops.HyperMap()

    def construct(self, losses: Tensor, share: Tensor, *scalars: Tensor) -> Tensor:
        """Update the weights.

        Args:
            losses: (P + 2,) result of the last batch.
            share: Factor of the added gradients.
            *scalars: Values of ``Optimizer.scalars``.

        Returns:
            (P + 2,) losses, with the norm of the gradients in the last place if they are clipped.
        """
        gradients = self.gradients(share)
        if self.clip is not None:
            gradients, norm = self.clip(gradients)
            losses = ops.concat((losses[:-1], norm.reshape(1)), 0)
        return ops.depend(losses, self.optimizer(gradients, scalars))

    def gradients(self, share: Tensor) -> tuple[Tensor, ...]:
        """Return the added gradients times a factor, in the shapes of the parameters."""
        return self.map(ops.partial(_cut, self.total * share), self.offsets, self.like)


class Graph(Protocol):
    """A compiled cell: :class:`TrainStep`, :class:`AddGradients` or :class:`Update`, also with graphs on disk.

    Attributes:
        compile_cache: MindSpore's keys of the graphs that the cell has, one for each combination of shapes.
    """

    compile_cache: Collection[Any]

    def __call__(self, *arguments: Tensor) -> Any:
        """Run the graph for the shapes of the arguments."""


class Steps(Protocol):
    """Trains on batches, and decides after which of them the weights are updated."""

    def train(self, step: int, images: Tensor, labels: Tensor, scalars: Sequence[Tensor]) -> tuple[Tensor, bool]:
        """Train on the batch of a step; return the losses, and whether the weights were updated."""

    def added(self) -> Tensor | None:
        """Return the gradients that wait for an update; None if there are none."""

    def restore(self, step: int, added: Tensor | None) -> None:
        """Continue after a number of steps."""

    def graphs(self) -> tuple[Graph, ...]:
        """Return the cells that are compiled; only the first depends on the shape of a batch."""


class UpdateEveryBatch:
    """One graph computes the gradients of a batch and updates the weights."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def train(self, step: int, images: Tensor, labels: Tensor, scalars: Sequence[Tensor]) -> tuple[Tensor, bool]:
        """See :meth:`Steps.train`."""
        return self._graph(images, labels, *scalars), True

    def added(self) -> None:
        """See :meth:`Steps.added`."""

    def restore(self, step: int, added: Tensor | None) -> None:
        """See :meth:`Steps.restore`."""

    def graphs(self) -> tuple[Graph, ...]:
        """See :meth:`Steps.graphs`."""
        return (self._graph,)


class UpdateAfterBatches:
    """One graph adds the gradients of a batch, another one updates the weights.

    Args:
        add: The first graph.
        update: The second graph.
        total: The added gradients.
        accumulation: After how many batches the weights are updated.
        is_mean: Whether the loss is a mean over the images of a batch, so that the gradients are divided by the number
            of batches.
    """

    def __init__(self, add: Graph, update: Graph, total: Parameter, accumulation: Accumulation, is_mean: bool) -> None:
        self._add, self._update, self._total = add, update, total
        self._accumulation, self._is_mean = accumulation, is_mean
        self._waiting = 0

    def train(self, step: int, images: Tensor, labels: Tensor, scalars: Sequence[Tensor]) -> tuple[Tensor, bool]:
        """See :meth:`Steps.train`."""
        losses = self._add(images, labels, Tensor(np.float32(self._waiting > 0)))
        self._waiting += 1
        if self._waiting < self._accumulation.batches_at(step):
            return losses, False
        share = 1 / self._waiting if self._is_mean else 1.0
        losses = self._update(losses, Tensor(np.float32(share)), *scalars)
        self._waiting = 0
        return losses, True

    def added(self) -> Tensor | None:
        """See :meth:`Steps.added`."""
        return self._total.value() if self._waiting else None

    def restore(self, step: int, added: Tensor | None) -> None:
        """See :meth:`Steps.restore`."""
        _, self._waiting = self._accumulation.updates_after(step)
        if added is not None:
            self._total.set_data(added)

    def graphs(self) -> tuple[Graph, ...]:
        """See :meth:`Steps.graphs`."""
        return self._add, self._update
