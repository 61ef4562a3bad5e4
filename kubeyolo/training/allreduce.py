"""The sum of gradients over all processes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from mindspore import Tensor, nn, ops

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
    """Sums gradients over all processes in one exchange: on a CPU each exchange costs more than its bytes.

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
