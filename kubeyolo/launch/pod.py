"""What runs in each pod of a training on a cluster: ``python -m kubeyolo.launch.pod``.

Starts the training processes of this pod, prints what they print, and writes it to the store too: when a gang is
restarted its pods are removed, and their logs with them.
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
from kubeyolo.launch.gang import Gang
from kubeyolo.launch.local import Show, launch_training
from kubeyolo.output_streams import patient_streams
from kubeyolo.stop_signals import RaisingHandler, install
from kubeyolo.storage.base import Store, join_key
from kubeyolo.storage.uri import open_store
from kubeyolo.training.spec import EXIT_INTERRUPTED, SPEC, TrainingSpec

LOG_FOLDER = "logs"
LOG_SECONDS = 15.0
"""Time between two writes of the log to the store."""

_TERMINATION_LOG = Path("/dev/termination-log")
_LONGEST_MESSAGE = 3000


def main() -> int:
    """Run the pod and return its exit code: 0 done, 1 failed, 2 bad input, 143 told to stop."""
    install(RaisingHandler(_end))
    try:
        spec, gang = _spec(), Gang.from_environment()
        open_store(spec.output)  # It is waited for here, and a log must not hold up the end of a pod for as long.
        with _kept(open_store(spec.output, hasty=True), gang) as show:
            launch_training(spec, gang.world, show, gang)
    except InterruptedWork as error:
        return _leave(EXIT_INTERRUPTED, str(error))
    except KubeyoloError as error:
        return _leave(error.exit_code, str(error))
    except Exception as error:
        traceback.print_exc()
        return _leave(1, f"unexpected {type(error).__name__}: {one_line(error)}")
    return 0


def _spec() -> TrainingSpec:
    try:
        return TrainingSpec.model_validate_json(os.environ.get(SPEC, ""))
    except ValidationError as error:
        raise InputError(f"the environment variable {SPEC} is no training spec: {first_problem(error)}") from error


def _end(number: int) -> SystemExit:
    return SystemExit(EXIT_INTERRUPTED)


def _leave(code: int, message: str) -> int:
    """Leave the message where Kubernetes keeps it with the state of the container."""
    print(f"error: {message}", flush=True)
    with contextlib.suppress(OSError):
        _TERMINATION_LOG.write_text(message[-_LONGEST_MESSAGE:], encoding="utf-8")
    return code


class _Log:
    """The lines of this pod, as an object of the store that is replaced now and then."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self._lines: list[str] = []
        self._written = 0
        self._writing = threading.Lock()

    def show(self, line: str) -> None:
        """Print a line and keep it."""
        print(line, flush=True)
        self.keep(line)

    def keep(self, line: str) -> None:
        """Keep a line that somebody else prints."""
        self._lines.append(line)

    def write(self) -> None:
        """Write the lines when there are new ones; a store that cannot be reached is no reason to end."""
        with self._writing:
            count = len(self._lines)
            if count == self._written:
                return
            with contextlib.suppress(KubeyoloError):
                self._store.write_bytes(self._key, ("\n".join(self._lines[:count]) + "\n").encode())
                self._written = count


@contextlib.contextmanager
def _kept(store: Store, gang: Gang) -> Iterator[Show]:
    """Give a function that prints lines; they are in the store at the end, and every now and then before."""
    started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    log, done = _Log(store, join_key(LOG_FOLDER, f"{started}-{gang.name}-{gang.node}.log")), threading.Event()

    def write_now_and_then() -> None:
        while not done.wait(LOG_SECONDS):
            log.write()

    threading.Thread(target=write_now_and_then, daemon=True, name="log").start()
    try:
        yield log.show
    except KubeyoloError as error:
        log.keep(f"error: {error}")
        raise
    finally:
        done.set()
        log.write()


if __name__ == "__main__":
    with patient_streams():
        exit_code = main()
    sys.exit(exit_code)
