"""Progress of long work: a bar on a terminal, a plain line at intervals elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import ExitStack
from types import TracebackType
from typing import IO, Any, Literal, Self, TypeVar

from kubeyolo.formats import duration, share_text, size_text

_T = TypeVar("_T")

_LINE_SECONDS = 10.0


class Progress:
    """Shows the progress of work on standard error.

    On a terminal it is a bar. Elsewhere, as in the log of a pod, it is a line every 10 seconds at most, and nothing
    for work that takes less time. ``advance`` may be called from several threads.

    Args:
        description: What is being done, such as "uploading model.onnx".
        total: Number of all steps or bytes, if known.
        unit: Unit of the counts.
        stream: Where to write; standard error by default.
        line_seconds: Shortest time between two plain lines.
        has_note: Whether the bar ends with the text of :meth:`note` in place of the remaining time.
    """

    def __init__(
        self,
        description: str,
        total: int | None = None,
        unit: Literal["steps", "bytes"] = "steps",
        stream: IO[str] | None = None,
        line_seconds: float = _LINE_SECONDS,
        has_note: bool = False,
    ) -> None:
        self._description = description
        self._total = total
        self._unit = unit
        self._stream = sys.stderr if stream is None else stream
        self._line_seconds = line_seconds
        self._has_note = has_note
        self._done = 0
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._bar: Any = None
        self._task: Any = None
        self._start = self._line_at = time.monotonic()
        self._lines = 0

    @property
    def done(self) -> int:
        """How many steps or bytes are done."""
        return self._done

    def __enter__(self) -> Self:
        self._start = self._line_at = time.monotonic()
        if self._stream.isatty():
            self._bar = self._stack.enter_context(_make_bar(self._unit, self._stream, self._has_note))
            self._task = self._bar.add_task(self._description, total=self._total, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if self._lines and kind is None:
            self._print_line(time.monotonic())

    def advance(self, count: int = 1) -> None:
        """Count more steps or bytes as done."""
        with self._lock:
            self._done += count
            if self._bar is not None:
                self._bar.update(self._task, completed=self._done)
                return
            now = time.monotonic()
            if now - self._line_at >= self._line_seconds:
                self._print_line(now)

    def note(self, text: str) -> None:
        """Show a text at the end of the bar; nothing happens without a bar."""
        with self._lock:
            if self._bar is not None:
                self._bar.update(self._task, note=text, refresh=True)

    def _print_line(self, now: float) -> None:
        self._line_at = now
        self._lines += 1
        seconds = max(now - self._start, 1e-9)
        rate = self._done / seconds
        count = size_text if self._unit == "bytes" else str
        line = f"{self._description}: {count(self._done)}"
        if self._total:
            line += f" of {count(self._total)} ({share_text(self._done / self._total, 0)})"
        line += f", {size_text(rate) if self._unit == 'bytes' else f'{rate:.{int(rate < 100)}f}'}/s"
        if self._total and 0 < self._done < self._total:
            line += f", {duration((self._total - self._done) / rate)} left"
        print(line, file=self._stream, flush=True)


def track(iterable: Iterable[_T], description: str, total: int | None = None) -> Iterator[_T]:
    """Yield the items of ``iterable`` and show how many were yielded."""
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with Progress(description, total) as progress:
        for item in iterable:
            yield item
            progress.advance()


def _make_bar(unit: str, stream: IO[str], has_note: bool) -> Any:
    # Imported here: a pod draws no bar and need not load rich.
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as RichProgress

    from kubeyolo.consoles import SafeConsole

    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False), BarColumn()]
    if unit == "bytes":
        columns += [DownloadColumn(), TransferSpeedColumn()]
    else:
        columns += [MofNCompleteColumn()]
    columns += [TextColumn("{task.fields[note]}", markup=False) if has_note else TimeRemainingColumn()]
    return RichProgress(*columns, console=SafeConsole(stream), transient=True)
