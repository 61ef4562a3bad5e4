"""Stop signals: their handlers, and how a second stop request differs from the first."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SECOND_SECONDS = 0.5
"""Shortest time between a first signal and the Ctrl-C that ends a process at once."""

_SAME_ORDER_SECONDS = 2.0

_ALWAYS = (signal.SIGINT, signal.SIGTERM)
# Batch systems announce the end of a job's time by one of the last three signals, which kill a process by default.
_UNLESS_IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)

Handler = Callable[[int, FrameType | None], Any]


class StopSignal(KeyboardInterrupt):
    """This process received a stop signal; the code that handles the error cleans up.

    It is a ``KeyboardInterrupt``: code that handles Ctrl-C handles the other signals too.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return the stop signals of this process: SIGINT, SIGTERM, and the other stop signals that it does not ignore.

    ``nohup`` starts a program with SIGHUP ignored, so that it outlives its terminal.
    """
    return _ALWAYS + tuple(number for number in _UNLESS_IGNORED if signal.getsignal(number) != signal.SIG_IGN)


def install(handler: Handler | signal.Handlers) -> dict[signal.Signals, Any]:
    """Set a handler for the stop signals of this process; return the previous handlers."""
    return {number: signal.signal(number, handler) for number in stop_signals()}


@contextmanager
def handling(handler: Handler) -> Iterator[None]:
    """Set a handler for stop signals within the block; does nothing in other threads than the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = install(handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            # None: the handler was not set by Python code, and cannot be restored.
            signal.signal(number, signal.SIG_DFL if previous is None else previous)


class StopOrder:
    """Distinguishes the first signal from the Ctrl-C that ends the process immediately.

    Several signals may belong to one stop request: a terminal that closes sends SIGHUP twice, a service manager SIGTERM
    and SIGHUP, and in a pipeline Ctrl-C comes from the terminal and from the run. So only a SIGINT at least half a
    second after the first signal is a second stop request.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._at = 0.0

    @property
    def given(self) -> bool:
        """Whether a signal was received."""
        return self.number is not None

    def is_second(self, number: int) -> bool:
        """Record a signal; return whether the process must exit immediately."""
        now = time.monotonic()
        if self.number is None:
            self.number, self._at = number, now
            return False
        return number == signal.SIGINT and now - self._at >= SECOND_SECONDS


class RaisingHandler:
    """A handler that raises an error, so that unfinished work is cleaned up.

    Signals within the next two seconds belong to the same stop request: they do not interrupt the cleanup. A Ctrl-C
    interrupts it after half a second.

    Args:
        error: Returns the error for the number of a signal.
    """

    def __init__(self, error: Callable[[int], BaseException] = StopSignal) -> None:
        self.order = StopOrder()
        self.raises = error
        self._raised_at = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        first, now = not self.order.given, time.monotonic()
        if self.order.is_second(number) or first or now - self._raised_at >= _SAME_ORDER_SECONDS:
            self._raised_at = now
            raise self.raises(number)


@contextmanager
def announcing(show: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a line, and that a signal handler may call.

    The main thread may be in the middle of a line when a signal arrives, so another thread shows the line.
    """
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def work() -> None:
        for line in iter(lines.get, None):
            with suppress(OSError, ValueError):  # The stream is closed, or cannot be written.
                show(line)

    thread = threading.Thread(target=work, daemon=True, name="announcer")
    thread.start()
    try:
        yield lines.put
    finally:
        lines.put(None)
        thread.join(_SAME_ORDER_SECONDS)
