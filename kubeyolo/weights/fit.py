"""Compares arrays with the parameters of a network, and sets all parameters or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kubeyolo.arrays import Float32Array
from kubeyolo.errors import InputError
from kubeyolo.weights.names import Layout, from_layout
from kubeyolo.weights.stored_array import WeightArray, as_float32

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
"""Shapes of a network's parameters by name."""


@dataclass(frozen=True)
class NamedArray:
    """An array with its name in the file."""

    name: str
    array: WeightArray


@dataclass(frozen=True)
class Mismatch:
    """A parameter that is missing, unknown, or has a different shape.

    Attributes:
        name: Name in the network, or in the file if the network has no such parameter.
        expected: Shape in the network; None if the network has no such parameter.
        found: Shape in the file; None if the parameter is missing there.
        in_file: Name in the file; for a missing parameter, the name that the file should have.
    """

    name: str
    expected: Shape | None
    found: Shape | None
    in_file: str = ""

    def __str__(self) -> str:
        if self.found is None:
            return f"missing {self.name} {self.expected}"
        if self.expected is None:
            return f"unknown {self.name} {self.found}"
        return f"{self.in_file or self.name} is {self.found}, must be {self.expected}"


class WeightsMismatch(InputError):
    """The weights belong to a different network.

    Attributes:
        rows: All parameters that do not fit.
    """

    def __init__(self, message: str, rows: Sequence[Mismatch]) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


def check_fit(arrays: Mapping[str, NamedArray], shapes: Shapes, what: str) -> None:
    """Compare arrays with the parameters of a network.

    Args:
        arrays: Arrays by their names in the network.
        shapes: Shapes of the network's parameters.
        what: Start of the message, which names the weights and the network.

    Raises:
        WeightsMismatch: A parameter is missing, unknown, or has a different shape.
    """
    rows = [Mismatch(name, shape, None) for name, shape in shapes.items() if name not in arrays]
    for name, found in arrays.items():
        shape = tuple(found.array.shape)
        if name not in shapes:
            rows.append(Mismatch(found.name, None, shape, found.name))
        elif shape != tuple(shapes[name]):
            rows.append(Mismatch(name, tuple(shapes[name]), shape, found.name))
    if rows:
        rows.sort(key=lambda row: (row.name not in shapes, row.name))
        shown = "; ".join(str(row) for row in rows[:3])
        more = f"; and {len(rows) - 3} more" if len(rows) > 3 else ""
        raise WeightsMismatch(f"{what}: {shown}{more}", rows)


def name_arrays(pairs: Sequence[tuple[str, NamedArray]]) -> dict[str, NamedArray]:
    """Return arrays by their names in the network.

    Raises:
        InputError: Two arrays have the same name in the network.
    """
    named: dict[str, NamedArray] = {}
    for ours, found in pairs:
        if ours in named:
            raise InputError(
                f"arrays {named[ours].name!r} and {found.name!r} both belong to parameter {ours!r}; keep one array"
            )
        named[ours] = found
    return named


def move_eps(variances: Mapping[str, WeightArray], old: float, new: float) -> dict[str, Float32Array]:
    """Return variances that have the same effect with a different constant: σ² + old = (σ² + old − new) + new.

    Args:
        variances: Running variances by name.
        old: Constant that batch normalization adds to ``variances``.
        new: Constant that it adds to the returned variances.
    """
    return {name: as_float32(array) + np.float32(old - new) for name, array in variances.items()}


def load_arrays(network: Any, arrays: Mapping[str, NDArray[Any]], layout: Layout = "yolov5") -> None:
    """Set every weight of a detector from arrays whose names are those of another program.

    Args:
        network: A detector of :func:`kubeyolo.models.registry.build_model`.
        arrays: Arrays by name, convolution weights as (out, in, kernel height, kernel width).
        layout: Layout of the names.

    Raises:
        InputError: A name is missing or unknown, or a shape differs; the network is then unchanged.
    """
    pairs = [
        (ours, NamedArray(name, array))
        for name, array in arrays.items()
        if (ours := from_layout(name, network.facts, layout)) is not None
    ]
    load_named(network, name_arrays(pairs), f"weights do not fit model {network.facts.name!r}")


def load_named(network: Any, arrays: Mapping[str, NamedArray], what: str) -> None:
    """Set every parameter of a network, one at a time, from arrays that have the names of the network.

    Args:
        network: A MindSpore cell.
        arrays: Arrays in memory or in a file; arrays in a file are read one at a time.
        what: Start of the error message.

    Raises:
        WeightsMismatch: A name is missing or unknown, or a shape differs; the network is then unchanged.
    """
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    check_fit(arrays, {name: tuple(parameter.shape) for name, parameter in parameters.items()}, what)
    from mindspore import Tensor

    for name, parameter in parameters.items():
        parameter.set_data(Tensor(as_float32(arrays[name].array)))
