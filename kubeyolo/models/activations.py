"""Activation functions by name; all can be exported to ONNX and MINDIR on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from mindspore import Tensor, nn, ops

ActivationName = Literal["silu", "mish", "leaky", "relu"]


class SiLU(nn.Cell):
    """x·σ(x) (https://arxiv.org/abs/1702.03118)."""

    def __init__(self) -> None:
        super().__init__()
        self.sigmoid = ops.Sigmoid()

    def construct(self, x: Tensor) -> Tensor:
        """Map each element."""
        # Not nn.SiLU, which on a CPU computes the sigmoid a second time in its gradient.
        return x * self.sigmoid(x)


class Mish(nn.Cell):
    """x·tanh(log(1 + exp(x))) (https://arxiv.org/abs/1908.08681).

    With s = σ(x) and u = s·(2 − s) the hyperbolic tangent is u / (2 − u), without overflow or cancellation.
    """

    def __init__(self) -> None:
        super().__init__()
        # Not nn.Mish, which cannot be exported to ONNX, and not ops.Tanh, which on a CPU is wrong by 1e-4 near 5: that
        # changes the third digit of the outputs of deep networks.
        self.sigmoid = ops.Sigmoid()

    def construct(self, x: Tensor) -> Tensor:
        """Map each element."""
        s = self.sigmoid(x)
        u = s * (2.0 - s)
        return x * (u / (2.0 - u))


class LeakyReLU(nn.Cell):
    """x above zero, a tenth of x below: darknet's "leaky"."""

    def construct(self, x: Tensor) -> Tensor:
        """Map each element."""
        return ops.maximum(x, x * 0.1)


_ACTIVATIONS: dict[ActivationName, Callable[[], nn.Cell]] = {
    "silu": SiLU,
    "mish": Mish,
    "leaky": LeakyReLU,
    "relu": nn.ReLU,
}


def activation(name: ActivationName) -> nn.Cell:
    """Build an activation function."""
    return _ACTIVATIONS[name]()
