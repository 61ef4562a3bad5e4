"""An interrupted run ends its step first, so that a training writes a checkpoint before it stops."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

_SHELLS = frozenset({"sh", "dash", "bash"})


class Interruption:
    """Whether the run was interrupted; ``end_steps`` tells the running steps to end, and whether there are any."""

    def __init__(self, end_steps: Callable[[], bool]) -> None:
        self.happened = False
        self._end_steps = end_steps

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Tell the running step to end; the second time, or when none is running, end at once."""
        if self.happened or not self._end_steps():
            raise KeyboardInterrupt
        self.happened = True


def end_step_processes() -> bool:
    """Send SIGTERM to the processes of the steps; tell whether there are any."""
    steps = step_processes(os.getpid())
    for pid in steps:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    return bool(steps)


@contextmanager
def interruptible(end_steps: Callable[[], bool] = end_step_processes) -> Iterator[Interruption]:
    """Pass SIGINT and SIGTERM on to the running step, as SIGTERM, in place of ending at once."""
    interruption = Interruption(end_steps)
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, interruption.handle) for number in numbers}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def step_processes(pid: int) -> list[int]:
    """Return the processes that a run has started: those under a shell, and not what a step itself has started."""
    found = []
    for child in _children(pid):
        found.append(child)
        if _name(child) in _SHELLS:
            found += _children(child)
    return found


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
