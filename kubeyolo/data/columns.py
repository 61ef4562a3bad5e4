"""Converts columns of a table to arrays: numbers that may be written as text or as floats (7.0), and ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kubeyolo.arrays import AnyArray, Int64Array
from kubeyolo.errors import InputError

EXACT = 1 << 53
"""Smaller whole numbers are exact as floats."""


@dataclass(frozen=True, eq=False)
class WholeNumbers:
    """A column of whole numbers.

    Attributes:
        values: int64; 0 at the positions in ``absent``.
        absent: Positions without a whole number.
        mended: Positions of numbers that were written as text or as floats (7.0).
    """

    values: Int64Array
    absent: Int64Array
    mended: Int64Array


def whole_numbers(column: Sequence[Any]) -> WholeNumbers:
    """Return a column as whole numbers of 64 bits."""
    none = np.zeros(0, np.int64)
    array = _int64(column)
    if array is not None:
        return WholeNumbers(array, none, none)
    numbers = [whole_number(value) for value in column]
    absent = np.array([number is None for number in numbers], bool)
    mended = np.array([type(value) is not int for value in column], bool) & ~absent
    values = np.array([number or 0 for number in numbers], np.int64)
    return WholeNumbers(values, np.flatnonzero(absent), np.flatnonzero(mended))


def whole_number(value: object) -> int | None:
    """Return a value as a whole number of 64 bits, also from text ("96") or a float (96.0); None for other values."""
    if isinstance(value, str):
        text = value.strip()
        if len(text) > 40:
            return None
        try:
            value = int(text)
        except ValueError:
            try:
                value = float(text)
            except ValueError:
                return None
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        value = int(value)
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    return None


def real_number(value: object) -> float | None:
    """Return a value as a float, also from text; it may be NaN or infinite. None for other values."""
    if isinstance(value, str) and len(value) <= 40:
        try:
            return float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if not isinstance(value, int) or abs(value) < EXACT else None


@dataclass(frozen=True, eq=False)
class Keys:
    """Ids of a table as numbers.

    Attributes:
        numbers: int64; equal ids have equal numbers.
        texts: The original ids as texts if at least one id is a text; None if all ids are numbers.
        mended: Positions of numbers that were written as text or as floats (7.0).
    """

    numbers: Int64Array
    texts: list[str] | None
    mended: Int64Array


def read_keys(column: Sequence[Any], describe: Callable[[int], str]) -> Keys:
    """Return ids as numbers; if an id is a text, all ids are numbered from 1 in alphabetical order.

    Args:
        column: The ids.
        describe: Returns the text that describes the id at a position in messages: "images[0] has id 'a'".

    Raises:
        InputError: An id is neither a whole number nor a text.
    """
    whole = whole_numbers(column)
    bad = [int(i) for i in whole.absent if not isinstance(column[i], str) or not is_text(column[i]) or not column[i]]
    refuse(bad, lambda i: f"{describe(i)}, which is neither a 64-bit integer nor a text", "write an integer or a text")
    if not len(whole.absent):
        return Keys(whole.values, None, whole.mended)
    texts = [str(canonical(value)) for value in column]
    number = {text: n for n, text in enumerate(sorted(set(texts)), start=1)}
    return Keys(np.array([number[text] for text in texts], np.int64), texts, np.zeros(0, np.int64))


def canonical(value: object) -> object:
    """Return an id as a whole number if :func:`whole_number` can read it; otherwise unchanged."""
    number = whole_number(value)
    return value if number is None else number


def positions_of(column: Sequence[Any], keys: Sequence[Any]) -> Int64Array:
    """Return the position of each id of a column in ``keys``, which are unique; -1 for an id that is not a key."""
    values, numbers = _int64(column), _int64(keys)
    if values is not None and numbers is not None and len(numbers):
        order = np.argsort(numbers, kind="stable")
        position = order[np.minimum(np.searchsorted(numbers, values, sorter=order), len(numbers) - 1)]
        return np.where(numbers[position] == values, position, -1)
    first: dict[object, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(canonical(key), i)
    return np.array([first.get(canonical(value), -1) if _is_key(value) else -1 for value in column], np.int64)


def _is_key(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def duplicates(values: AnyArray) -> Int64Array:
    """Return the positions of values that also occur earlier, in ascending order."""
    first = np.unique(values, return_index=True)[1]
    repeated = np.ones(len(values), bool)
    repeated[first] = False
    return np.flatnonzero(repeated)


def is_text(name: str) -> bool:
    """Tell whether a string can be encoded as UTF-8: a string from JSON may have lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: object) -> str:
    """Return a value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."


def plain(value: object) -> str:
    """Return an id for a message, without quotation marks unless it is long or would break the line."""
    text = str(value)
    return text if len(text) <= 80 and text.isprintable() else shown(value)


def refuse(bad: AnyArray | Sequence[int], describe: Callable[[int], str], remedy: str) -> None:
    """Raise an InputError if ``bad`` is not empty; its message describes the first case and counts the other cases."""
    if len(bad) == 0:
        return
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    raise InputError(f"{describe(int(bad[0]))}{more}; {remedy}")


def _int64(column: Sequence[Any]) -> Int64Array | None:
    """Return a column as an array if all its values are integers; otherwise None."""
    if isinstance(column, np.ndarray):
        return column if column.dtype == np.int64 and column.ndim == 1 else None
    if not len(column):
        return np.zeros(0, np.int64)
    try:
        array = np.array(column)
    except (ValueError, OverflowError):
        return None
    if array.dtype != np.int64 or array.ndim != 1 or any(type(value) is bool for value in column):
        return None
    return array
