"""One training of an output at a time on one machine: two of them would write the same checkpoints."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from kubeyolo.storage.cache import cache_folder
from kubeyolo.storage.file_errors import file_errors, make_folder

SAY_SECONDS = 30.0
"""Time between two lines that say for whom a training waits."""

_POLL_SECONDS = 0.2


@contextmanager
def claimed(output: str, say_seconds: float = SAY_SECONDS) -> Iterator[None]:
    """Hold an output against other processes of this user on this machine, once those that hold it are done.

    The kernel lets go when a holder dies, however that may be. Whoever comes next finds what was left: a complete
    training, or its newest checkpoint.
    """
    folder = make_folder(cache_folder("locks"))
    path = folder / f"{hashlib.sha256(output.encode()).hexdigest()[:16]}.lock"
    with file_errors(path):
        file = path.open("a+")
    with file:
        _acquire(file, output, say_seconds)
        # For those who wait. A full disk takes no number, but the lock.
        with suppress(OSError):
            file.truncate(0)
            os.write(file.fileno(), f"{os.getpid()}\n".encode())
        yield


def _acquire(file: TextIO, output: str, say_seconds: float) -> None:
    say_at = time.monotonic()
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= say_at:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                print(f"waiting for process {holder}, which is training at {output}", flush=True)
                say_at += say_seconds
            time.sleep(_POLL_SECONDS)
