"""Cleans names of classes, so that they can be compared."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from kubeyolo.names import class_name

_MARKS = "\ufeff\u200b\u2060"
"""Byte order mark, zero-width space, word joiner: invisible characters."""


def clean_name(name: str) -> str:
    """Return a name without white space and invisible marks at its ends, its accents composed (NFC).

    Control characters inside are replaced by their numbers, and a long name is cut; see :func:`class_name`.
    """
    return class_name(plain_name(name))


def plain_name(name: str) -> str:
    """Return a name as :func:`clean_name` does, but with all characters inside it and of any length."""
    before, after = "", unicodedata.normalize("NFC", name)
    while before != after:
        before, after = after, after.strip().strip(_MARKS)
    return after


def clean_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return names cleaned; see :func:`clean_name`."""
    return tuple(clean_name(name) for name in names)
