"""The program in each pod of a job: ``python -m kubeyolo.launch.pod``.

Starts the worker processes of this pod, prints their lines, and also writes the lines to the store: when a gang is
restarted, its pods and their logs are deleted.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from kubeyolo.errors import InputError, InterruptedWork, KubeyoloError, first_problem, one_line
from kubeyolo.launch import ascend
from kubeyolo.launch.local import check_module, launch_work
from kubeyolo.launch.rank_table import wait_for_rank_table
from kubeyolo.launch.rendezvous import Rendezvous
from kubeyolo.output_streams import Show, patient_streams
from kubeyolo.stop_signals import RaisingHandler, install
from kubeyolo.storage.base import Store, join_key
from kubeyolo.storage.place import Place
from kubeyolo.work import EXIT_INTERRUPTED, WORK, Work

LOG_FOLDER = "logs"
LOG_SECONDS = 15.0
"""Seconds between two writes of the log to the store."""

_TERMINATION_LOG = Path("/dev/termination-log")
_LONGEST_MESSAGE = 3000


def main() -> int:
    """Run the pod and return its exit code: 0 done, 1 failed, 2 bad input, 143 stopped by a signal."""
    install(RaisingHandler(_end))
    try:
        work, rendezvous = _work(), Rendezvous.from_environment()
        output = Place.of(work.output)
        output.contact()  # The work waits long for the store; a log must not delay the end of a pod for so long.
        _make_work_folders()
        with _stored_lines(output.impatient().store, rendezvous) as show:
            wait_for_rank_table(rendezvous)
            launch_work(work, show, rendezvous)
    except InterruptedWork as error:
        return _leave(EXIT_INTERRUPTED, str(error))
    except KubeyoloError as error:
        return _leave(error.exit_code, str(error))
    except Exception as error:
        traceback.print_exc()
        return _leave(1, f"unexpected {type(error).__name__}: {one_line(error)}")
    return 0


def _work() -> Work:
    try:
        work = Work.model_validate_json(os.environ.get(WORK, ""))
    except ValidationError as error:
        raise InputError(f"the environment variable {WORK} cannot be read: {first_problem(error)}") from error
    check_module(work)
    return work


def _make_work_folders() -> None:
    """Create the folders into which CANN writes, as far as they are in the environment."""
    for variable in ascend.WORK_PATHS:
        if path := os.environ.get(variable):
            Path(path).mkdir(parents=True, exist_ok=True)


def _end(number: int) -> SystemExit:
    return SystemExit(EXIT_INTERRUPTED)


def _leave(code: int, message: str) -> int:
    """Print the message, and write it to the file from which Kubernetes reads the state of the container."""
    print(f"error: {message}", flush=True)
    with contextlib.suppress(OSError):
        _TERMINATION_LOG.write_text(message[-_LONGEST_MESSAGE:], encoding="utf-8")
    return code


class _Log:
    """The lines of this pod, in an object of the store that is rewritten at intervals."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self._lines: list[str] = []
        self._written = 0
        self._writing = threading.Lock()

    def show(self, line: str) -> None:
        """Print a line and add it to the log."""
        print(line, flush=True)
        self.add(line)

    def add(self, line: str) -> None:
        """Add a line without printing it."""
        self._lines.append(line)

    def write(self) -> None:
        """Write the log if it has new lines; an unreachable store does not end the pod."""
        with self._writing:
            count = len(self._lines)
            if count == self._written:
                return
            with contextlib.suppress(KubeyoloError):
                self._store.write_bytes(self._key, ("\n".join(self._lines[:count]) + "\n").encode())
                self._written = count


@contextlib.contextmanager
def _stored_lines(store: Store, rendezvous: Rendezvous) -> Iterator[Show]:
    """Yield a function that prints lines; the lines are stored at intervals, and at the end."""
    started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    log = _Log(store, join_key(LOG_FOLDER, f"{started}-{rendezvous.name}-{rendezvous.node}.log"))
    done = threading.Event()

    def write_from_time_to_time() -> None:
        while not done.wait(LOG_SECONDS):
            log.write()

    threading.Thread(target=write_from_time_to_time, daemon=True, name="log").start()
    try:
        yield log.show
    except KubeyoloError as error:
        log.add(f"error: {error}")
        raise
    finally:
        done.set()
        log.write()


if __name__ == "__main__":
    with patient_streams():
        exit_code = main()
    sys.exit(exit_code)
