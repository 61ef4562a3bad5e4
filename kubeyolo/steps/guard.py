"""Ends the process of a step on a signal, or when the run that started it has died."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kubeyolo.events import RUN_PID
from kubeyolo.processes import is_running
from kubeyolo.stop_signals import RaisingHandler, handling

_POLL_SECONDS = 0.5
_GRACE_SECONDS = 10.0


@contextmanager
def stops_with_its_run() -> Iterator[threading.Event]:
    """Turn a signal that ends the process into SystemExit, so that worker processes end too.

    The process sends itself such a signal when its run has died. Otherwise the step of a killed run would
    continue, and two trainings would write the same checkpoints. The event is set once the step has received a stop
    signal.
    """
    stop_requested = threading.Event()

    def ended(number: int) -> SystemExit:
        stop_requested.set()
        return SystemExit(128 + number)

    with handling(RaisingHandler(ended)):
        watcher = _watch_run()
        try:
            yield stop_requested
        finally:
            watcher.set()


def _watch_run() -> threading.Event:
    finished = threading.Event()
    pid = os.environ.get(RUN_PID, "")
    if pid.isdigit():
        threading.Thread(target=_end_without_run, args=(int(pid), finished), daemon=True, name="run-guard").start()
    return finished


def _end_without_run(pid: int, finished: threading.Event) -> None:
    while not finished.wait(_POLL_SECONDS):
        if not is_running(pid):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(_GRACE_SECONDS)
            os.kill(os.getpid(), signal.SIGKILL)
