"""Runs work in child processes that end by SIGKILL just before a chosen system call or request."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from kubeyolo.storage import parts

_CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "fcntl.flock"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_REQUEST = "http.client.send"
_MOST_POINTS = 400


EVERY = int(os.environ.get("KUBEYOLO_KILL_EVERY", "4"))
"""Work is killed before every change if this is 1, by default before every fourth change, to save time."""


def kill_points(work: Callable[[], object], every: int = EVERY) -> Iterator[int]:
    """Run ``work`` again and again, each time killed a few changes later, and yield the number of the change.

    The caller prepares the next run when it receives a number. The last run is not killed, and its number not yielded.
    """
    for number in range(0, _MOST_POINTS, every):
        code = run_in_child(work, number)
        if code == 0:
            assert number > 1, "nothing was changed"
            return
        assert code == -signal.SIGKILL, f"change {number}: exit code {code}"
        yield number
    raise AssertionError(f"more than {_MOST_POINTS} changes")


def run_in_child(work: Callable[[], object], killed_before: int | None = None) -> int:
    """Run ``work`` in a fork of this process and return its exit code; a negative number is a signal.

    Args:
        work: The work.
        killed_before: Number, from 0, of the change of a file or the request before which the child is killed.
    """
    with warnings.catch_warnings():
        # The child calls neither JAX nor MindSpore, whose threads a fork does not copy.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if process == 0:
        code = 1
        try:
            # A new process has swept no folder.
            parts._swept.clear()
            if killed_before is not None:
                sys.addaudithook(_Killer(killed_before))
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


class _Killer:
    def __init__(self, remaining: int) -> None:
        self._remaining = remaining

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        changes = event in _CHANGES or event == _REQUEST or (event == "open" and arguments[2] & _WRITING)
        if changes and self._remaining == 0:
            self._remaining = -1
            os.kill(os.getpid(), signal.SIGKILL)
        elif changes:
            self._remaining -= 1
