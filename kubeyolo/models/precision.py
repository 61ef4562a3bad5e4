"""Half precision: a network whose convolutions and activations compute in float16 or bfloat16.

The parameters stay float32: the graph casts the weights of each convolution. So checkpoints, bundles and averages are
the same for every precision. Batch normalization reads and writes half precision, and computes its statistics and
running averages in float32. The result of the head is float32, for the loss.

A layer whose kind is not listed here stays float32, between two casts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import mindspore as ms
from mindspore import Tensor, nn

from kubeyolo.models.activations import LeakyReLU, Mish, SiLU
from kubeyolo.models.blocks import Bottleneck, Upsample

_FOLLOWING = (SiLU, Mish, LeakyReLU, nn.ReLU, nn.MaxPool2d, Upsample, Bottleneck)
"""Cells that compute in the type of their input; a bottleneck adds its input to its result."""

_NORMALIZING: Mapping[ms.Type, tuple[type[nn.Cell], ...]] = {ms.float16: (nn.BatchNorm2d,)}
"""Layers with float32 statistics that read and write a type by themselves. No kernel is known to do so for bfloat16."""


class Cast(nn.Cell):
    """Casts values to a type, and gradients back to the type of the values.

    Args:
        name: float16 or bfloat16.
    """

    def __init__(self, name: Literal["float16", "bfloat16"]) -> None:
        super().__init__()
        self.dtype = ms.float16 if name == "float16" else ms.bfloat16

    def construct(self, x: Tensor) -> Tensor:
        """Return the values in the type; values of this type are returned as they are."""
        return x.astype(self.dtype)


class _WrappedLayer(nn.Cell):
    """A layer with a cast to half precision; the names of its parameters do not change.

    Args:
        layer: Maps a tensor to a tensor.
        half: Casts to half precision.
    """

    def __init__(self, layer: nn.Cell, half: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.layer = layer
        self.half = half


class HalfConvolution(_WrappedLayer):
    """A convolution of values and weights in half precision.

    A bias is added in float32, and the sum stays float32: the gradient of a bias is a sum over all cells of a map. Only
    the convolutions of the head have a bias.
    """

    def construct(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) of any precision to (N, out, H', W')."""
        y = self.half(self.layer.conv2d(self.half(x), self.half(self.layer.weight)))
        if self.layer.has_bias:
            y = self.layer.bias_add(y.astype(ms.float32), self.layer.bias)
        return y


class HalfLayer(_WrappedLayer):
    """A layer that computes in the type of its input."""

    def construct(self, x: Tensor) -> Tensor:
        """Map values of any precision to values in half precision."""
        return self.half(self.layer(self.half(x)))


class Float32Layer(_WrappedLayer):
    """A layer that computes in float32, with a result in half precision."""

    def construct(self, x: Tensor) -> Tensor:
        """Map values of any precision to values in half precision."""
        return self.half(self.layer(x.astype(ms.float32)))


@dataclass(frozen=True)
class Precisions:
    """How the layers of a network compute.

    Attributes:
        half: Number of layers in half precision, by name of their kind.
        single: Number of layers in float32, by name of their kind.
    """

    half: Mapping[str, int]
    single: Mapping[str, int]

    def words(self, precision: str) -> str:
        """Return the layers as a line for the log."""
        single = f"; in float32: {_listed(self.single)}" if self.single else ""
        return f"computing in {precision}: {_listed(self.half)}{single}; statistics, loss and weights are float32"


def use_half_precision(network: nn.Cell, half: nn.Cell) -> Precisions:
    """Let the layers of a network compute in half precision; the names of its parameters do not change.

    Args:
        network: The network, which is changed. Its last layers are convolutions with a bias, so its result is float32.
        half: Casts a tensor to half precision, usually :class:`Cast`.
    """
    counts: dict[type[nn.Cell], Counter[str]] = defaultdict(Counter)
    for parent in [cell for _, cell in network.cells_and_names()]:
        for name, cell in parent.name_cells().items():
            wrapper = _wrapper(cell, half)
            if wrapper is not None:
                counts[wrapper][type(cell).__name__] += 1
                # Unlike an assignment this keeps the names of the parameters.
                parent.insert_child_to_cell(name, wrapper(cell, half))
        if isinstance(parent, nn.SequentialCell):
            parent.cell_list = list(parent.cells())
    return Precisions(counts[HalfConvolution] + counts[HalfLayer], counts[Float32Layer])


def _wrapper(cell: nn.Cell, half: nn.Cell) -> type[nn.Cell] | None:
    """Return the kind of cell that takes the place of a cell; None for a cell that only connects others."""
    if isinstance(cell, nn.Conv2d):
        return HalfConvolution
    # Not isinstance: a subclass may compute its statistics from the values as they are.
    if isinstance(cell, _FOLLOWING) or type(cell) in _NORMALIZING.get(getattr(half, "dtype", None), ()):
        return HalfLayer
    return Float32Layer if any(True for _ in cell.get_parameters(expand=False)) else None


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
