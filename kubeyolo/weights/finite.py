"""Weights that are infinite or no numbers: refused wherever a bundle's weights are loaded."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from kubeyolo.errors import InputError
from kubeyolo.weights.stored_array import WeightArray, as_float32


def check_finite(place: str, arrays: Iterable[tuple[str, WeightArray]]) -> None:
    """Refuse a bundle with weights that are not finite; of arrays in a file one at a time is in memory.

    Args:
        place: URI of the bundle.
        arrays: Names and arrays.

    Raises:
        InputError: Names the first array that is not finite, how many of its values are not, and how many arrays.
    """
    bad = []
    for name, array in arrays:
        values = as_float32(array)
        if not np.isfinite(values).all():
            bad.append((name, int(np.count_nonzero(~np.isfinite(values))), values.size))
    if bad:
        (name, count, size), others = bad[0], len(bad) - 1
        more = "" if not others else f", and {others} more {'array is' if others == 1 else 'arrays are'} like it"
        raise InputError(
            f"{place}: its weights cannot be used: {count} of the {size} values of {name!r} are infinite or no "
            f"numbers{more}; train with a lower learning rate, or import the weights of an earlier checkpoint"
        )
