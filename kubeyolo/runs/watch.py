"""Reads the events of the steps from the output of kfp while it runs a pipeline on this machine."""

from __future__ import annotations

import io
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable
from typing import TextIO

from kubeyolo.events import Event, parse_event

_TAIL_LINES = 20

# From such a line on, the lines of a step are the stack of an error, which is only for the log.
_STACK = re.compile(r"Traceback \(most recent call last\)|\[(ERROR|CRITICAL)\] ")

# Lines of libraries between those of a step: MindSpore's and kfp's own log lines, warnings of libraries.
_MACHINERY = re.compile(
    r"-{40,}$|\[KFP Executor |\d\d:\d\d:\d\d\.\d{3} - |\[(WARNING|INFO|DEBUG)\] |.*Warning: |\s*warnings\.warn\("
)
_NEXT_TASK = re.compile(r"\d\d:\d\d:\d\d\.\d{3} - INFO - Executing task ")
_INDENTATION = "    "
_CACHE_HIT = re.compile(r"Task (?P<task>\S+) cache hit \(key=(?P<key>[0-9a-f]+)\)")


def last_line(lines: Iterable[str]) -> str:
    """Return the last line that was printed by a step, not by kfp or a library; empty if there is none."""
    own = [line.strip() for line in lines if line.strip() and not _MACHINERY.match(line.strip())]
    return own[-1] if own else ""


class StepLines(io.TextIOBase):
    """Replaces standard output while kfp runs: writes all to a log, and passes on events and lines of the steps."""

    def __init__(self, log: TextIO, on_event: Callable[[Event], None], on_line: Callable[[str], None]) -> None:
        self._log = log
        self._on_event = on_event
        self._on_line = on_line
        self._rest = ""
        self._in_step = False
        self._in_stack = False
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def writable(self) -> bool:
        """Return True: print writes to this stream."""
        return True

    def write(self, text: str) -> int:
        """Write a piece of output of any size."""
        # kfp writes its indentation before each piece of a container's output, which may start within a line.
        if text == _INDENTATION and self._rest.strip():
            return len(text)
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._take(line)
        return len(text)

    def flush(self) -> None:
        """Flush the log."""
        self._log.flush()

    def _take(self, line: str) -> None:
        self._log.write(line + "\n")
        event = parse_event(line)
        if event is not None:
            if event.kind == "started":
                self._in_step, self._in_stack = True, False
                self.tail.clear()
            self._in_step = self._in_step and event.kind not in ("finished", "failed")
            self._on_event(event)
            return
        text = line.removeprefix(_INDENTATION).rstrip()
        # A step that was killed prints no event at its end.
        self._in_step = self._in_step and not _NEXT_TASK.match(text)
        if not self._in_step or not text or _MACHINERY.match(text):
            return
        self.tail.append(text)
        self._in_stack = self._in_stack or bool(_STACK.match(text))
        if not self._in_stack:
            self._on_line(text)


class CacheHits(logging.Handler):
    """Reports steps whose results kfp takes from its cache: name of the task, and first digits of the key."""

    def __init__(self, log: TextIO, on_hit: Callable[[str, str], None]) -> None:
        super().__init__(logging.INFO)
        self._log = log
        self._on_hit = on_hit

    def emit(self, record: logging.LogRecord) -> None:
        """Read one line of kfp's log."""
        message = record.getMessage()
        self._log.write(message + "\n")
        hit = _CACHE_HIT.match(message)
        if hit:
            self._on_hit(hit["task"].replace("-", "_"), hit["key"])
