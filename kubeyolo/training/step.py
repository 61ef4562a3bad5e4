"""One training step as one compiled graph: from uint8 images to updated weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import mindspore as ms
from mindspore import Tensor, nn, ops

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


_flat = ops.MultitypeFuncGraph("flat")
_cut = ops.MultitypeFuncGraph("cut")
_slice = ops.Slice()


@_flat.register("Tensor")
def _flatten(gradient: Tensor) -> Tensor:
    return gradient.reshape(-1)


@_cut.register("Tensor", "Number", "Tensor")
def _cut_out(total: Tensor, offset: int, like: Tensor) -> Tensor:
    return _slice(total, (offset,), (like.size,)).reshape(like.shape)


class GradientSum(nn.Cell):
    """Sums gradients over all processes in one exchange: on a CPU each exchange has a large overhead.

    Args:
        shapes: Shapes of the gradients.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        sizes = [math.prod(shape) for shape in shapes]
        self.offsets = tuple(itertools.accumulate(sizes[:-1], initial=0))
        self.reduce = ops.AllReduce(ops.ReduceOp.SUM)
        self.concat = ops.Concat(0)
        self.map = ops.HyperMap()

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the sums, in the shapes of the gradients."""
        total = self.reduce(self.concat(self.map(_flat, gradients)))
        return self.map(ops.partial(_cut, total), self.offsets, gradients)


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
        super().__init__()
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
