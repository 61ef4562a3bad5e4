"""How a process has ended, and what a process that prints for us is given: what is known, and no guess."""

from __future__ import annotations

import signal

UTF8_OUTPUT = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}
"""Environment of a Python process whose output this one reads, whatever the console and the locale are."""

INSTALLED_CODE = {"PYTHONSAFEPATH": "1"}
"""Environment of a Python process that imports nothing from the folder it is started in."""

_SIGNALED = 128


def ending(code: int) -> str:
    """Return how a process ended: its exit code, or the name of the signal that killed it."""
    if code < 0:
        return f"killed by {_name(-code) or f'signal {-code}'}"
    # A shell ends so when its command was killed.
    name = _name(code - _SIGNALED) if code > _SIGNALED else ""
    return f"exit code {code}" + (f", as after {name}" if name else "")


def is_killed(code: int) -> bool:
    """Tell whether SIGKILL has ended a process, or what a shell or msrun says of one."""
    return code in (-signal.SIGKILL, _SIGNALED + signal.SIGKILL)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""
