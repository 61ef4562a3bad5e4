"""The few errors of kubeyolo, and the exit codes they stand for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

_MOST = 6
"""Names that are suggested at most."""


class KubeyoloError(Exception):
    """An error with a message for the person at the terminal: what, where, and what to do."""

    exit_code = 1


class WorkError(KubeyoloError):
    """The input was good, the work failed: a gate, a crash of a worker, a broken peer."""

    exit_code = 1


class InterruptedWork(WorkError):
    """The work was told to stop, and has left what the same command continues from."""

    exit_code = 130


class InputError(KubeyoloError):
    """The input cannot be used: a file, a value, a name, a store that does not answer."""

    exit_code = 2


def one_line(said: object, longest: int | None = None) -> str:
    """Return what somebody else has said in one line, cut to this many characters where they are given."""
    return " ".join(str(said).split())[:longest]


class _Validation(Protocol):
    def errors(self, *, include_url: bool = True) -> Sequence[Mapping[str, Any]]: ...


class Problem(NamedTuple):
    """What is wrong with a document: the dotted key, the value there, pydantic's kind of the error, and the reason."""

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
    """Return the key, without spaces around it, and the text of a ``key=value`` argument.

    Args:
        pair: The argument.
        option: The option it was given to.
        example: An argument that is right.
        form: What is expected, in the words of the option's help.

    Raises:
        InputError: It has no ``=`` or no key.
    """
    key, equals, text = pair.partition("=")
    if not equals or not key.strip():
        raise InputError(f"{option} {pair!r}: expected {form}, such as {option} {example}")
    return key.strip(), text


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known name, else the known names."""
    names = sorted(known)
    longer = [other for other in names if name and other.startswith(name)]
    if longer:
        shown = [repr(other) for other in sorted(longer, key=lambda other: (len(other), other))[:_MOST]]
        return f"; did you mean {' or '.join(shown)}?"
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if nearest:
        return f"; did you mean {nearest[0]!r}?"
    return f"; known: {', '.join(names)}"
