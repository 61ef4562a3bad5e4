"""bfloat16 where it has no kernels: float32 operators whose values and gradients are rounded to it."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn


class Rounding(nn.Cell):
    """Rounds values to bfloat16; so are their gradients, because the gradient of each cast is a cast back."""

    def construct(self, x: Tensor) -> Tensor:
        """Return float32 values that bfloat16 can hold."""
        return x.astype(ms.bfloat16).astype(ms.float32)
