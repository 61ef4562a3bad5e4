"""The few errors of kubeyolo, and the exit codes they stand for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

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


def first_problem(error: _Validation) -> str:
    """Return the first problem that pydantic's ValidationError has found: where, and what."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else str(problem["msg"])


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
