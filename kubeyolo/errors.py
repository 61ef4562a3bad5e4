"""The error classes of kubeyolo with their exit codes, and parts of their messages."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from kubeyolo.printable import escaped

_MOST = 6
"""Largest number of suggested names."""

LONGEST_MESSAGE = 1900
"""Most characters of a message."""

_END = 400
"""Characters that are kept from the end of a longer message, because the remedy is there."""


class KubeyoloError(Exception):
    """An error with a message for the person at the terminal: what, where, and what to do."""

    exit_code = 1


class WorkError(KubeyoloError):
    """The input was valid, but the work failed: a metric missed its gate, or a process crashed."""


class InterruptedWork(WorkError):
    """The work was interrupted; to continue it, run the same command again."""

    exit_code = 130


class InputError(KubeyoloError):
    """The input cannot be used: a file, a value, a name, a store that does not answer."""

    exit_code = 2


def one_line(text: object, longest: int | None = None) -> str:
    """Return a text from data or from another program as one line without control characters, cut to ``longest``."""
    return escaped(" ".join(str(text).split()))[:longest]


def message_line(text: object) -> str:
    """Return a message as one line; of more than :data:`LONGEST_MESSAGE` characters the middle is left out."""
    line = one_line(text)
    return line if len(line) <= LONGEST_MESSAGE else f"{line[: LONGEST_MESSAGE - _END]} … {line[-_END:]}"


class _Validation(Protocol):
    def errors(self, *, include_url: bool = True) -> Sequence[Mapping[str, Any]]: ...


class Problem(NamedTuple):
    """A problem in a document: the dotted key, its value, pydantic's name for the kind of error, and the reason."""

    key: str
    value: Any
    kind: str
    reason: str


def problem_of(error: _Validation) -> Problem:
    """Return the first problem of pydantic's ValidationError."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    return Problem(key, first.get("input"), first["type"], first["msg"].removeprefix("Value error, "))


def first_problem(error: _Validation) -> str:
    """Return the first problem of pydantic's ValidationError in words: the dotted key and the reason."""
    problem = problem_of(error)
    return f"{problem.key}: {problem.reason}" if problem.key else problem.reason


def split_pair(pair: str, option: str, example: str, form: str = "key=value") -> tuple[str, str]:
    """Return the key, without spaces around it, and the value of a ``key=value`` argument.

    Args:
        pair: The argument.
        option: The option of the argument.
        example: A valid argument.
        form: The expected form, as in the help of the option.

    Raises:
        InputError: The argument has no ``=`` or no key.
    """
    key, equals, text = pair.partition("=")
    if not equals or not key.strip():
        raise InputError(f"{option} {pair!r}: expected {form}, such as {option} {example}")
    return key.strip(), text


def check_known(kind: str, name: object, known: Collection[str], origin: str = "") -> None:
    """Refuse a name that is not among the known names.

    Args:
        kind: What the name stands for, such as "model".
        name: The name.
        known: All names that are allowed.
        origin: Where the name comes from, for the message of the error.

    Raises:
        InputError: The name is not known; the message suggests the nearest known name.
    """
    if name not in known:
        where = f" (from {origin})" if origin else ""
        raise InputError(f"unknown {kind} {name!r}{where}{suggest(str(name), known)}")


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known name, or a list of all known names."""
    names = sorted(known)
    longer = [other for other in names if name and other.startswith(name)]
    if longer:
        shown = [repr(other) for other in sorted(longer, key=lambda other: (len(other), other))[:_MOST]]
        return f"; did you mean {' or '.join(shown)}?"
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if nearest:
        return f"; did you mean {nearest[0]!r}?"
    return f"; known: {', '.join(names)}"
