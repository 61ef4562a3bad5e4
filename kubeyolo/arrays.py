"""Types of numpy arrays, and functions that find or refuse arrays with infinite values or NaN."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kubeyolo.errors import InputError

AnyArray = NDArray[Any]
Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
Int64Array = NDArray[np.int64]
Int32Array = NDArray[np.int32]
BoolArray = NDArray[np.bool_]

Pixels = NDArray[np.uint8]
"""An image (height, width, 3), or one channel of it (height, width)."""


def places_in_groups(groups: Int64Array) -> Int64Array:
    """Return the place 0, 1, … of each row (N,) among the rows of its group; equal groups are next to each other."""
    starts = np.flatnonzero(np.r_[True, np.diff(groups) != 0])[: len(groups)]
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))


def not_finite(arrays: Iterable[tuple[str, AnyArray]]) -> Iterator[tuple[str, int, int]]:
    """Yield arrays with values that are not finite: name, number of these values, and number of all values."""
    for name, values in arrays:
        finite = np.isfinite(values)
        if not finite.all():
            yield name, int(np.count_nonzero(~finite)), values.size


def check_finite(uri: str, arrays: Iterable[tuple[str, AnyArray]]) -> None:
    """Refuse a bundle with weights that are not finite.

    Args:
        uri: URI of the bundle.
        arrays: Names and arrays of its weights, checked one after another.

    Raises:
        InputError: A value is not finite; the message has the first such array and the counts.
    """
    bad = list(not_finite(arrays))
    if bad:
        (name, count, size), others = bad[0], len(bad) - 1
        more = "" if not others else f", and {others} more {'array has' if others == 1 else 'arrays have'} such values"
        raise InputError(
            f"{uri}: its weights cannot be used: {count} of the {size} values of {name!r} are infinite or "
            f"NaN{more}; train with a lower learning rate, or import the weights of an earlier checkpoint"
        )
