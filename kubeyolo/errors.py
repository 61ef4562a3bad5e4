"""The few errors of kubeyolo, and the exit codes they stand for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KubeyoloError(Exception):
    """An error with a message for the person at the terminal: what, where, and what to do."""

    exit_code = 1


class WorkError(KubeyoloError):
    """The input was good, the work failed: a gate, a crash of a worker, a broken peer."""

    exit_code = 1


class InputError(KubeyoloError):
    """The input cannot be used: a file, a value, a name, a store that does not answer."""

    exit_code = 2


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known name, else the known names."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if nearest:
        return f"; did you mean {nearest[0]!r}?"
    return f"; known: {', '.join(names)}"
