"""The log lines of the processes of a machine: those of its first rank are shown, and all are merged into one file.

msrun writes a file for each process. Of the other ranks only warnings and errors are shown, and only a few, because
most of them are the same in all ranks; the merged file, ``logs/ranks.log`` in the output of a training, has every line.
"""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from kubeyolo.errors import KubeyoloError
from kubeyolo.output_streams import Show
from kubeyolo.storage.place import Place

FOLDER = "logs"
"""Folder of the merged file in the output of a training."""

LAST_LINES = 8
"""Lines of a failed rank that an error has."""

MOST_SHOWN = 5
"""Warnings and errors of a rank that are shown."""

MOST_BYTES = 4_000_000
"""Size of the stored file; older lines are removed."""

STORE_SECONDS = 300.0
"""Time between two writes of the stored file; it is also written at the end."""

# MindSpore's parameter server ignores the configured log level.
_NOISE = re.compile(r"\[INFO\] \w+\(")
_IMPORTANT = re.compile(r"(?i)warning:|error:|\[(WARNING|ERROR|CRITICAL)\]|Traceback \(|(\w+\.)*\w*(Error|Exception)\b")


class RankLogs:
    """Follows the log files of the processes of a machine.

    Args:
        folder: The folder in which msrun writes ``worker_<rank>.log``.
        ranks: Ranks of this machine; all lines of the first are shown.
        show: Shows a line.
        stored: Receives every line of every rank; None if the lines are not stored.
    """

    def __init__(self, folder: Path, ranks: range, show: Show, stored: StoredLog | None = None) -> None:
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self._files = {rank: _GrowingFile(folder / f"worker_{rank}.log") for rank in ranks}
        self._first, self._show, self._stored = ranks[0], show, stored
        self._shown: dict[int, set[str]] = {rank: set() for rank in ranks}

    def poll(self) -> None:
        """Show and store the lines that were written since the last call."""
        for rank, file in self._files.items():
            lines = file.new_lines()
            if self._stored:
                self._stored.add([f"rank {rank}: {line}" for line in lines])
            for line in lines:
                if rank == self._first:
                    self.last.append(line)
                    self._show(line)
                elif _IMPORTANT.match(line.strip()):
                    self._show_important(rank, line)

    def _show_important(self, rank: int, line: str) -> None:
        """Show a warning or an error once, and only the first few of a rank."""
        shown = self._shown[rank]
        if line in shown or len(shown) > MOST_SHOWN:
            return
        shown.add(line)
        if len(shown) <= MOST_SHOWN:
            self._show(f"rank {rank}: {line}")
        else:
            where = f", see {self._stored.uri}" if self._stored else ""
            self._show(f"rank {rank}: more warnings and errors follow{where}")


class StoredLog:
    """The merged lines of a machine in the output of a training, after those of earlier launches.

    The files of several machines are merged by sorting their lines: each begins with the time at which it was read.

    Args:
        output: URI of the output.
        node: Number of this machine.
        nodes: Number of machines.
        show: Shows a line.
    """

    def __init__(self, output: str, node: int, nodes: int, show: Show) -> None:
        self._store = Place.of(output).impatient().store
        self._key = f"{FOLDER}/ranks.log" if nodes == 1 else f"{FOLDER}/ranks-{node}.log"
        self._show = show
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._former: bytes | None = None
        self._due = time.monotonic() + STORE_SECONDS

    @property
    def uri(self) -> str:
        """URI of the file."""
        return self._store.uri_of(self._key)

    def add(self, lines: Sequence[str]) -> None:
        """Add lines with the time of now, and store the file if it is due."""
        now = datetime.now().astimezone().isoformat(timespec="milliseconds")
        for line in lines:
            self._lines.append(f"{now} {line}\n".encode())
            self._size += len(self._lines[-1])
        while self._size > MOST_BYTES:
            self._size -= len(self._lines.popleft())
        if time.monotonic() > self._due:
            self.write()

    def write(self) -> None:
        """Store the file; a failure is shown once, and does not end the work."""
        self._due = time.monotonic() + STORE_SECONDS
        try:
            if self._former is None:
                self._former = self._store.read_bytes(self._key) if self._store.exists(self._key) else b""
            excess = len(self._former) + self._size - MOST_BYTES
            former = self._former if excess <= 0 else self._former[excess:].partition(b"\n")[2]
            self._store.write_bytes(self._key, former + b"".join(self._lines))
        except (KubeyoloError, OSError) as error:
            self._due = math.inf
            self._show(f"warning: the log of all processes is not stored: {error}")


class _GrowingFile:
    """Returns the lines of a growing file, each once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._rest = ""

    def new_lines(self) -> list[str]:
        """Return the complete lines that were written since the last call, without MindSpore's messages of progress."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._position)
            data = file.read()
        self._position += len(data)
        *lines, self._rest = (self._rest + data.decode(errors="replace")).split("\n")
        return [line for line in lines if not _NOISE.match(line)]


def last_lines(log: Path) -> list[str]:
    """Return the last lines of a log file; empty if there is none."""
    lines = log.read_text("utf-8", errors="replace").splitlines() if log.exists() else []
    return [line for line in lines if not _NOISE.match(line)][-LAST_LINES:]


def tails(folder: Path, ranks: Sequence[int]) -> list[str]:
    """Return the last lines of some ranks, each after a line with the rank."""
    last: list[str] = []
    for rank in ranks:
        lines = last_lines(folder / f"worker_{rank}.log")
        last += [f"rank {rank}:", *lines] if lines else []
    return last
