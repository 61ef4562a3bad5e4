"""One run of a name at a time on one machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from kubeyolo.errors import InputError
from kubeyolo.storage.file_errors import file_errors, make_folder
from kubeyolo.storage.file_lock import held_file


@contextmanager
def run_lock(path: Path) -> Iterator[None]:
    """Hold the lock file of a run, which has the process id of its holder in it.

    The kernel lets go of the lock when its holder dies, so that a stale file never stands in the way. Where the file
    system has no locks, a second file beside it stands for one.

    Raises:
        InputError: Another process holds it; the message has its process id.
    """
    make_folder(path.parent)
    # Opened for appending, since the content is another's until the lock is held.
    with file_errors(path):
        file = path.open("a+")
    with file, ExitStack() as locks:
        try:
            locks.enter_context(held_file(file.fileno(), path, wait=False))
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise InputError(
                f"{path.parent.name}: this run is already under way here (process {holder}); wait for it or end it"
            ) from None
        # For those who wait. A full disk takes no number, but the lock.
        with suppress(OSError):
            file.truncate(0)
            os.write(file.fileno(), f"{os.getpid()}\n".encode())
        try:
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)
