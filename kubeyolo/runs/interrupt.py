"""An interrupted run ends its step first, so that a training writes a checkpoint before it stops."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType

from kubeyolo.stop_signals import StopOrder, StopSignal, announcing, handling

_SHELLS = frozenset({"sh", "dash", "bash"})


STOPPING = "stopping: the running step ends first, a training with a checkpoint; Ctrl-C again ends it at once"

CONTINUES = "interrupted; the same command continues"


class Interruption:
    """Whether the run was interrupted; ``end_steps`` tells the running steps to end, and whether there are any."""

    def __init__(self, end_steps: Callable[[], bool], announce: Callable[[str], None]) -> None:
        self._order = StopOrder()
        self._end_steps, self._announce = end_steps, announce

    @property
    def happened(self) -> bool:
        """Whether a signal has come."""
        return self._order.given

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Tell the running step to end; at a second Ctrl-C, or when none is running, end at once."""
        first = not self.happened
        if self._order.is_second(number):
            raise KeyboardInterrupt(CONTINUES)
        if not first:
            return
        if not self._end_steps():
            raise KeyboardInterrupt(CONTINUES)
        self._announce(STOPPING)


def interruption_words(error: KeyboardInterrupt) -> str:
    """Return what is said of a run that was interrupted."""
    return CONTINUES if isinstance(error, StopSignal) or not error.args else str(error)


def end_step_processes(number: signal.Signals = signal.SIGTERM) -> bool:
    """Send a signal to the processes of the steps; tell whether there are any."""
    steps = step_processes(os.getpid())
    for pid in steps:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    return bool(steps)


@contextmanager
def interruptible(end_steps: Callable[[], bool] = end_step_processes) -> Iterator[Interruption]:
    """Tell the running step to end, by SIGTERM, when this process is told to, in place of ending at once."""
    # The stream is named now: while kfp runs, sys.stdout is another one.
    with announcing(partial(print, file=sys.stderr, flush=True)) as announce:
        interruption = Interruption(end_steps, announce)
        with handling(interruption.handle):
            yield interruption


def step_processes(pid: int) -> list[int]:
    """Return the processes of the steps of a run, and not what a step itself has started.

    A shell that waits for a step is left alone: it ends with it, and without it nobody would find the step again.
    """
    found = []
    for child in _children(pid):
        below = step_processes(child) if _name(child) in _SHELLS else []
        found += below or [child]
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
