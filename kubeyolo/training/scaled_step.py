"""The graphs of a training step with a scaled loss: an overflow leaves everything as it was.

Their results end with the columns of :data:`kubeyolo.training.finite.SCALED_COLUMNS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import mindspore as ms
from mindspore import Tensor, nn, ops

from kubeyolo.training.finite import SCALED_COLUMNS
from kubeyolo.training.loss_scaling import LossScaling, Scaler
from kubeyolo.training.optimizers import GradientClip, Optimizer, ParameterGroups
from kubeyolo.training.step import AddGradients, TrainStep, Update

_half_square = ops.L2Loss()


class ScaledLoss(nn.Cell):
    """The loss times the scale, with the loss itself and its parts.

    Args:
        forward: Maps images and labels to the total loss and its parts.
        scaler: Has the scale.
    """

    def __init__(self, forward: nn.Cell, scaler: Scaler) -> None:
        super().__init__()
        self.forward = forward
        self.scale = scaler.scale

    def construct(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the scaled loss to differentiate, the loss, and its parts."""
        total, parts = self.forward(images, labels)
        return total * self.scale, total, parts


class ScaledTrainStep(TrainStep):
    """Forward, gradients, sum over processes, and unless a gradient overflowed: clipping and optimizer.

    Gradients are summed over the processes first, so all processes skip the same updates.

    Args:
        forward: Network and loss, in training mode.
        groups: Trainable parameters.
        optimizer: Optimizer of the same groups.
        scaling: The scale, the counts of updates, and the running statistics of the network.
        grad_clip: Largest global norm of the gradients; 0 for no clipping.
        reduce: Cell that sums the gradients of all processes, or None for one process.
    """

    def __init__(
        self,
        forward: nn.Cell,
        groups: ParameterGroups,
        optimizer: Optimizer,
        scaling: LossScaling,
        grad_clip: float = 0.0,
        reduce: Callable[..., tuple[Tensor, ...]] | None = None,
    ) -> None:
        super().__init__(ScaledLoss(forward, scaling.scaler), groups, optimizer, reduce=reduce)
        self.scaler = scaling.scaler
        self.statistics = scaling.statistics
        self.limit = _clip(grad_clip)

    def construct(self, images: Tensor, labels: Tensor, *scalars: Tensor) -> Tensor:
        """Train on one batch; arguments as :meth:`TrainStep.construct`.

        Returns:
            (P + 6,) total loss, its parts, the norm of the gradients, and the columns of a scaled loss.
        """
        (_, total, parts), gradients = self.gradients(images, labels)
        if self.reduce is not None:
            gradients = self.reduce(gradients)
        scale = self.scaler.scale
        norm = self.limit.norm(gradients) / scale
        factor = self.limit.factor(norm) / scale
        is_finite = ops.isfinite(norm)
        losses = _row(total, parts, norm, is_finite)
        if is_finite:
            done = self.optimizer(self.limit.multiplied(gradients, factor), scalars)
            losses = ops.depend(losses, done)
            if self.statistics is not None:
                losses = ops.depend(losses, self.statistics())
        elif self.statistics is not None:
            losses = ops.depend(losses, self.statistics.restore())
        return ops.concat((losses, self.scaler(is_finite)), 0)


class ScaledAddGradients(AddGradients):
    """Forward, gradients, sum over processes; finite gradients are added to those of the batches before.

    Args:
        forward: Network and loss, in training mode.
        groups: Trainable parameters.
        scaling: The scale, the counts of updates, and the running statistics of the network.
        reduce: Cell that sums the gradients of all processes, or None for one process.
    """

    def __init__(
        self,
        forward: nn.Cell,
        groups: ParameterGroups,
        scaling: LossScaling,
        reduce: Callable[..., tuple[Tensor, ...]] | None = None,
    ) -> None:
        super().__init__(ScaledLoss(forward, scaling.scaler), groups, reduce)
        self.scaler = scaling.scaler
        self.statistics = scaling.statistics

    def construct(self, images: Tensor, labels: Tensor, keep: Tensor) -> Tensor:
        """Add the gradients of one batch, times the scale; arguments as :meth:`AddGradients.construct`.

        Returns:
            (P + 6,) total loss, its parts, 0 in place of the norm of the gradients, and the columns of a scaled loss.
        """
        (_, total, parts), gradients = self.gradients(images, labels)
        if self.reduce is not None:
            gradients = self.reduce(gradients)
        joined, scaler = self.joined(gradients), self.scaler
        is_finite = ops.isfinite(_half_square(joined))
        losses = _row(total, parts, ops.zeros_like(total), is_finite)
        if is_finite:
            losses = ops.depend(losses, self.assign(self.total, self.total * keep + joined))
            if self.statistics is not None:
                losses = ops.depend(losses, self.statistics())
        else:
            losses = ops.depend(losses, self.assign(self.total, self.total * keep))
            if self.statistics is not None:
                losses = ops.depend(losses, self.statistics.restore())
        overflows = scaler.overflows * keep + 1.0 - is_finite.astype(ms.float32)
        losses = ops.depend(losses, self.assign(scaler.overflows, overflows))
        return ops.concat((losses, ops.stack((scaler.scale, scaler.skipped, scaler.stuck))), 0)


class ScaledUpdate(Update):
    """Clipping and optimizer, on the added gradients of several batches without an overflow.

    Args:
        added: The cell that adds them.
        groups: Trainable parameters.
        optimizer: Optimizer of the same groups.
        grad_clip: Largest global norm of the gradients; 0 for no clipping.
    """

    def __init__(
        self, added: ScaledAddGradients, groups: ParameterGroups, optimizer: Optimizer, grad_clip: float = 0.0
    ) -> None:
        super().__init__(added, groups, optimizer)
        self.scaler = added.scaler
        self.limit = _clip(grad_clip)

    def construct(self, losses: Tensor, share: Tensor, *scalars: Tensor) -> Tensor:
        """Update the weights, unless a batch overflowed; arguments as :meth:`Update.construct`.

        Returns:
            (P + 6,) losses, with the norm of the gradients and the new values of the scaler.
        """
        share = share / self.scaler.scale
        norm = ops.sqrt(2.0 * _half_square(self.total)) * share
        is_finite = self.scaler.overflows < 0.5
        parts = losses.shape[0] - SCALED_COLUMNS - 1
        losses = ops.concat((losses[:parts], norm.reshape(1), losses[parts + 1 : parts + 2]), 0)
        if is_finite:
            losses = ops.depend(losses, self.optimizer(self.gradients(share * self.limit.factor(norm)), scalars))
        return ops.concat((losses, self.scaler(is_finite)), 0)


def _clip(largest: float) -> GradientClip:
    return GradientClip(largest if largest > 0 else math.inf)


def _row(total: Tensor, parts: Tensor, norm: Tensor, is_finite: Tensor) -> Tensor:
    """Return the losses, and whether the gradients overflowed."""
    overflow = 1.0 - is_finite.astype(ms.float32)
    return ops.concat((total.reshape(1), parts, norm.reshape(1), overflow.reshape(1)), 0)
