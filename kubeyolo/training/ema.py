"""The exponential moving average of weights and batch normalisation statistics, as one vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from kubeyolo.training.checkpoints import Arrays


class WeightAverage(nn.Cell):
    """``average = decay · average + (1 − decay) · value`` for every floating-point parameter of a network.

    The averages are one vector, and its update a graph of its own: three kernels for each of some three hundred
    parameters, ordered behind the optimizer in the graph of the step, took an eighth of a step on a CPU.

    Args:
        parameters: Weights and running statistics; the average starts at their values.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        super().__init__()
        # A cell that takes this one as a part puts its own name before those of the parameters.
        self._shapes = {parameter.name: parameter.shape for parameter in parameters}
        self.values = ParameterTuple(parameters)
        flat = np.concatenate([parameter.asnumpy().reshape(-1) for parameter in parameters])
        self.average = Parameter(Tensor(flat), name="ema", requires_grad=False)
        self.subtract = ops.AssignSub()

    def construct(self, share: Tensor) -> Tensor:
        """Move the average towards the values by ``share``, which is 1 − decay."""
        parts: tuple[Tensor, ...] = ()
        for value in self.values:
            parts += (value.reshape(-1),)
        return self.subtract(self.average, (self.average - ops.concat(parts, 0)) * share)

    def arrays(self) -> Arrays:
        """Return copies of the averages by the names of the parameters they belong to."""
        flat, arrays, start = self.average.asnumpy(), {}, 0
        for name, shape in self._shapes.items():
            end = start + int(np.prod(shape))
            arrays[name] = np.array(flat[start:end]).reshape(shape)
            start = end
        return arrays

    def load(self, arrays: Arrays) -> None:
        """Set the averages, given by the names and of the shapes of :meth:`arrays`."""
        flat = np.concatenate([arrays[name].reshape(-1) for name in self._shapes])
        self.average.set_data(Tensor(flat.astype(np.float32)))
