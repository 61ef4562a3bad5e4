"""An interrupted run stops its step first, so that a training writes a checkpoint before the run ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

from kubeyolo.processes import children, send_signal
from kubeyolo.stop_signals import StopOrder, StopSignal, announcing, handling

_SHELLS = frozenset({"sh", "dash", "bash"})


STOPPING = "stopping: waiting for the running step; a training writes a checkpoint first; Ctrl-C again ends it at once"

CONTINUES = "interrupted; run the same command again to continue"


class Interruption:
    """Handles the stop signals that a run receives.

    Args:
        end_steps: Sends a stop signal to the running steps; returns whether a step was running.
        announce: Shows a line.
    """

    def __init__(self, end_steps: Callable[[], bool], announce: Callable[[str], None]) -> None:
        self._order = StopOrder()
        self._end_steps, self._announce = end_steps, announce

    @property
    def happened(self) -> bool:
        """Whether a signal was received."""
        return self._order.given

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Send a stop signal to the running step; at a second Ctrl-C, or without a running step, end at once."""
        first = not self.happened
        if self._order.is_second(number) or (first and not self._end_steps()):
            raise KeyboardInterrupt(CONTINUES)
        if first:
            self._announce(STOPPING)


def interruption_words(error: KeyboardInterrupt) -> str:
    """Return the message for a run that was interrupted."""
    return CONTINUES if isinstance(error, StopSignal) or not error.args else str(error)


def end_step_processes(number: signal.Signals = signal.SIGTERM) -> bool:
    """Send a signal to the processes of the steps; tell whether there was a process."""
    steps = step_processes(os.getpid())
    send_signal(steps, number)
    return bool(steps)


@contextmanager
def interruptible(end_steps: Callable[[], bool] = end_step_processes) -> Iterator[Interruption]:
    """At a stop signal to this process, send SIGTERM to the running step instead of ending at once."""
    # The stream is chosen now: while kfp runs, a different stream may replace it.
    with announcing(partial(print, file=sys.stderr, flush=True)) as announce:
        interruption = Interruption(end_steps, announce)
        with handling(interruption.handle):
            yield interruption


def step_processes(pid: int) -> list[int]:
    """Return the processes of the steps of a run, without the processes that a step has started.

    A shell that waits for a step is left out: it ends together with the step. If the shell ended first, the step could
    not be found.
    """
    steps = []
    for child in children(pid):
        below = step_processes(child) if _name(child) in _SHELLS else []
        steps += below or [child]
    return steps


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
