"""Signals to a launcher, passed on to its processes: the first lets them end in order, a second kills them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from kubeyolo.stop_signals import StopOrder, announcing, handling

STOPPING = (
    "stopping after the present step, with a checkpoint (while the network is compiled, that may take minutes); "
    "Ctrl-C again ends it at once"
)
"""What is said at once at the first signal: compiling holds the main thread of a process, which cannot answer."""

Processes = Callable[[], Sequence[int]]


class Forwarding:
    """What has come, and to whom it goes.

    Attributes:
        killed: Whether the processes were ended at once, at a second order.
    """

    def __init__(self, announce: Callable[[str], None]) -> None:
        self.killed = False
        self._order = StopOrder()
        self._announce = announce
        self._workers: Processes = tuple
        self._all: Processes = tuple
        self._reached: set[int] = set()

    @property
    def told(self) -> bool:
        """Whether this process was told to end."""
        return self._order.given

    def attach(self, workers: Processes, everything: Processes) -> None:
        """Name the processes that are told to end, and those that are killed; pass on what has come already."""
        self._workers, self._all = workers, everything
        self.pass_on()

    def pass_on(self) -> None:
        """Tell processes to end that have begun since this one was told."""
        if self.told:
            self._send(self._workers, signal.SIGTERM, self._reached)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        first = not self.told
        if self._order.is_second(number):
            self.killed = True
            self._send(self._all, signal.SIGKILL, set())
            return
        if first:
            self._announce(STOPPING)
        self.pass_on()

    @staticmethod
    def _send(processes: Processes, number: signal.Signals, reached: set[int]) -> None:
        for pid in processes():
            if pid not in reached:
                reached.add(pid)
                with suppress(ProcessLookupError):
                    os.kill(pid, number)


@contextmanager
def forwarding(show: Callable[[str], None]) -> Iterator[Forwarding]:
    """Pass on the signals that come within the block, when this is the main thread, which alone can take signals."""
    with announcing(show) as announce:
        forward = Forwarding(announce)
        with handling(forward.handle):
            yield forward
