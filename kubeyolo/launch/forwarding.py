"""Passes signals of a launcher on to its processes: the first asks them to stop, a second kills them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from kubeyolo.output_streams import Show
from kubeyolo.processes import send_signal
from kubeyolo.stop_signals import StopOrder, announcing, handling

STOPPING = (
    "stopping after the current step, with a checkpoint (while the network is compiled, that may take minutes); "
    "Ctrl-C again ends it at once"
)
"""Shown as soon as the first signal arrives: a training process cannot react while its main thread compiles."""

STOPPING_WITHOUT_CHECKPOINT = "stopping, without a checkpoint; Ctrl-C again ends it at once"
"""Shown instead for work that has no checkpoints."""

Processes = Callable[[], Sequence[int]]


class Forwarding:
    """Receives signals, and sends them to processes.

    Attributes:
        killed: Whether the processes were killed at a second stop request.
    """

    def __init__(self, announce: Callable[[str], None], announcement: str) -> None:
        self.killed = False
        self._order = StopOrder()
        self._announce = announce
        self._announcement = announcement
        self._workers: Processes = tuple
        self._all: Processes = tuple
        self._reached: set[int] = set()

    @property
    def stop_requested(self) -> bool:
        """Whether this process received a stop signal."""
        return self._order.given

    def attach(self, workers: Processes, everything: Processes) -> None:
        """Register which processes get SIGTERM and which SIGKILL; forward a signal that arrived earlier."""
        self._workers, self._all = workers, everything
        self.pass_on()

    def pass_on(self) -> None:
        """Send SIGTERM to processes that were started after this process received a stop signal."""
        if self.stop_requested:
            new = [pid for pid in self._workers() if pid not in self._reached]
            self._reached.update(new)
            send_signal(new, signal.SIGTERM)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        first = not self.stop_requested
        if self._order.is_second(number):
            self.killed = True
            send_signal(self._all(), signal.SIGKILL)
            return
        if first:
            self._announce(self._announcement)
        self.pass_on()


@contextmanager
def forwarding(show: Show, announcement: str = STOPPING) -> Iterator[Forwarding]:
    """Forward the signals that arrive within the block, if this is the main thread: only it can handle signals.

    Args:
        show: Shows a line.
        announcement: Shown at the first signal.
    """
    with announcing(show) as announce:
        forward = Forwarding(announce, announcement)
        with handling(forward.handle):
            yield forward
