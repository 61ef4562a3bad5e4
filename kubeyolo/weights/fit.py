"""Whether arrays are those of a network: every name, every shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kubeyolo.errors import InputError
from kubeyolo.weights.stored_array import WeightArray

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
"""Shapes of a network's parameters by name."""


@dataclass(frozen=True)
class NamedArray:
    """An array under the name it has in its file."""

    name: str
    array: WeightArray


@dataclass(frozen=True)
class Mismatch:
    """One parameter that is missing, not known, or of another shape.

    Attributes:
        name: Name in the network, or in the file when the network has no such parameter.
        expected: Shape in the network; None when it has no such parameter.
        found: Shape in the file; None when it is missing there.
        in_file: Name in the file, or the one it would have there.
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
    """Weights of another network.

    Attributes:
        rows: Everything that does not fit.
    """

    def __init__(self, message: str, rows: Sequence[Mismatch]) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


def check_fit(arrays: Mapping[str, NamedArray], shapes: Shapes, what: str) -> None:
    """Hold arrays, by their names in the network, against its parameters.

    Args:
        arrays: What there is.
        shapes: What the network has.
        what: Beginning of the message, which names the weights and the network.

    Raises:
        WeightsMismatch: A parameter is missing, not known, or of another shape.
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
        InputError: Two arrays have the same name there.
    """
    named: dict[str, NamedArray] = {}
    for ours, found in pairs:
        if ours in named:
            raise InputError(f"arrays {named[ours].name!r} and {found.name!r} are both {ours!r}; keep one of them")
        named[ours] = found
    return named
