"""Arrays with infinite values or NaN: which they are, and a bundle that has such weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kubeyolo.errors import InputError


def not_finite(arrays: Iterable[tuple[str, NDArray[Any]]]) -> Iterator[tuple[str, int, int]]:
    """Yield the arrays that are not finite: name, number of such values, and number of all values."""
    for name, values in arrays:
        finite = np.isfinite(values)
        if not finite.all():
            yield name, int(np.count_nonzero(~finite)), values.size


def check_finite(place: str, arrays: Iterable[tuple[str, NDArray[Any]]]) -> None:
    """Refuse a bundle with weights that are not finite.

    Args:
        place: URI of the bundle.
        arrays: Names and arrays of its weights; they are checked one after another.

    Raises:
        InputError: Names the first array that is not finite, how many of its values are not, and how many arrays.
    """
    bad = list(not_finite(arrays))
    if bad:
        (name, count, size), others = bad[0], len(bad) - 1
        more = "" if not others else f", and {others} more {'array is' if others == 1 else 'arrays are'} like it"
        raise InputError(
            f"{place}: its weights cannot be used: {count} of the {size} values of {name!r} are infinite or no "
            f"numbers{more}; train with a lower learning rate, or import the weights of an earlier checkpoint"
        )
