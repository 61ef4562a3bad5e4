"""One training of an output at a time on one machine: two of them would write the same checkpoints."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from kubeyolo.errors import WorkError
from kubeyolo.storage.cache import cache_folder

PATIENCE_SECONDS = 30.0
"""How long a training waits for one that is being ended, as when a run was interrupted and started again."""

_POLL_SECONDS = 0.2


@contextmanager
def claimed(output: str, patience: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Hold an output against other processes of this user on this machine; the kernel lets go when this one dies.

    Raises:
        WorkError: Another process has held it for longer than the patience lasts; the message has its process id.
    """
    folder = cache_folder("locks")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(output.encode()).hexdigest()[:16]}.lock"
    with path.open("a+") as file:
        if not _acquired(file, patience):
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise WorkError(f"{output}: process {holder} is training there; wait for it, or choose another output")
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _acquired(file: TextIO, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
