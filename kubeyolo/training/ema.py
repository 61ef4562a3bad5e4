"""The exponential moving average of weights and batch normalisation statistics, inside the compiled step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

_subtract = ops.AssignSub()
_average = ops.MultitypeFuncGraph("average")


@_average.register("Tensor", "Tensor", "Tensor")
def _move(share: Tensor, average: Tensor, value: Tensor) -> Tensor:
    return _subtract(average, (average - value) * share)


class WeightAverage(nn.Cell):
    """``average = decay · average + (1 − decay) · value`` for every floating-point parameter of a network.

    Args:
        parameters: Weights and running statistics; the average starts at their values.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        super().__init__()
        # A cell that takes this one as a part puts its own name before those of the parameters.
        self._names = [parameter.name for parameter in parameters]
        self.values = ParameterTuple(parameters)
        self.averages = ParameterTuple(
            [
                Parameter(Tensor(np.array(parameter.asnumpy())), name=f"ema.{parameter.name}", requires_grad=False)
                for parameter in parameters
            ]
        )
        self.map = ops.HyperMap()

    def construct(self, share: Tensor) -> Any:
        """Move the average towards the values by ``share``, which is 1 − decay."""
        return self.map(ops.partial(_average, share), self.averages, self.values)

    def named(self) -> dict[str, Parameter]:
        """Return the averages by the names of the parameters they belong to."""
        return dict(zip(self._names, self.averages, strict=True))
