"""A step that runs as a process of its own ends when it is told to, and when the run that started it is gone."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kubeyolo.events import RUN_PID
from kubeyolo.stop_signals import RaisingHandler, handling

_POLL_SECONDS = 0.5
_GRACE_SECONDS = 10.0


@contextmanager
def stops_with_its_run() -> Iterator[threading.Event]:
    """Turn a signal to end into SystemExit, so that worker processes are ended; send one when the run has died.

    A run that is killed leaves its step behind; two trainings would then write the same checkpoints. The event is set
    once the step was told to end.
    """
    told = threading.Event()

    def ended(number: int) -> SystemExit:
        told.set()
        return SystemExit(128 + number)

    with handling(RaisingHandler(ended)):
        watcher = _watch_run()
        try:
            yield told
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
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(_GRACE_SECONDS)
            os.kill(os.getpid(), signal.SIGKILL)
        except PermissionError:
            continue
