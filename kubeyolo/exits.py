"""How a process has ended, and what a process that prints for us is given: what is known, and no guess."""

from __future__ import annotations

import signal
from pathlib import Path

UTF8_OUTPUT = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}
"""Environment of a Python process whose output this one reads, whatever the console and the locale are."""

INSTALLED_CODE = {"PYTHONSAFEPATH": "1"}
"""Environment of a Python process that imports nothing from the folder it is started in."""

_VMSTAT = Path("/proc/vmstat")
_SIGNALED = 128


def ending(code: int) -> str:
    """Return how a process ended: its exit code, or the name of the signal that killed it."""
    if code < 0:
        return f"killed by {_name(-code) or f'signal {-code}'}"
    # A shell ends so when its command was killed.
    name = _name(code - _SIGNALED) if code > _SIGNALED else ""
    return f"exit code {code}" + (f", as after {name}" if name else "")


def memory_kills() -> int:
    """Return how many processes the kernel of this machine has killed for lack of memory since it was started.

    0 where the kernel does not count them.
    """
    try:
        for line in _VMSTAT.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    except (OSError, ValueError):
        pass
    return 0


def killed_for_memory(before: int) -> str:
    """Return in words how many processes the kernel has killed for lack of memory; empty when there were none.

    Args:
        before: What ``memory_kills`` has counted before.
    """
    count = memory_kills() - before
    if count <= 0:
        return ""
    return f"; meanwhile the kernel has killed {count} process{'' if count == 1 else 'es'} here for lack of memory"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""
