"""Streams for standard output and standard error whose errors have a name, and of which work need not die."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

OUTPUT, ERRORS = "standard output", "standard error"
"""What an error of writing has in place of the name of a file."""


class OutputStream(io.FileIO):
    """A standard stream whose errors have its name.

    A stream that is ``patient`` takes what cannot be written, which is lost: the work that writes goes on. Where room
    comes back on a full disk, later lines are written again.

    Attributes:
        patient: Whether it is.
        lost: Why something was lost first; None while nothing is.
    """

    def __init__(self, descriptor: int, words: str, patient: bool = False) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._words = words
        self.patient = patient
        self.lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write all, some or, where a patient stream cannot, nothing of the data; return how much is done with.

        Raises:
            OSError: It cannot be written, and the stream is not patient.
        """
        try:
            while (count := super().write(data)) is None:
                # Another program has made the terminal or the pipe, which it shares, non-blocking.
                select.select([], [self.fileno()], [])
            return count
        except OSError as error:
            if not self.patient:
                raise OSError(error.errno, error.strerror, self._words) from None
            if self.lost is None:
                self.lost = error
                self._tell(error)
            return len(data)

    def _tell(self, error: OSError) -> None:
        if self._words != ERRORS:
            print(
                f"warning: {self._words}: {why_lost(error)}; the work goes on, and what is not printed is lost",
                file=sys.stderr,
                flush=True,
            )


def why_lost(error: OSError) -> str:
    """Return in words why a stream cannot be written."""
    if error.errno == errno.EPIPE:
        return "closed by the program that reads it"
    if error.errno == errno.EIO:
        return "the terminal is gone"
    return error.strerror or str(error)


def text_stream(
    descriptor: int, words: str, present: TextIO | None, errors: str | None = None, patient: bool = False
) -> TextIO:
    """Return a stream of text in place of the present one, with the encoding that it has.

    Args:
        descriptor: 1 or 2.
        words: ``OUTPUT`` or ``ERRORS``.
        present: The present stream; None where it is closed.
        errors: How characters are written that the encoding does not have; as the present one does by default.
        patient: Whether what cannot be written is lost, in place of an error.
    """
    if present is not None:
        present.flush()
    encoding = getattr(present, "encoding", None) or "utf-8"
    errors = errors or getattr(present, "errors", None) or "backslashreplace"
    at_once = descriptor == 2 or os.isatty(descriptor) or bool(getattr(present, "write_through", False))
    raw = io.BufferedWriter(OutputStream(descriptor, words, patient))
    return io.TextIOWrapper(raw, encoding=encoding, errors=errors, line_buffering=at_once, write_through=at_once)


def raw_stream(stream: TextIO | None) -> OutputStream | None:
    """Return the stream of this module below a stream of text; None where there is none."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, OutputStream) else None


@contextmanager
def patient_streams() -> Iterator[None]:
    """Let the work within the block go on when its output cannot be written.

    Streams that somebody else has put in the place of those of this process are left alone.
    """
    before = sys.stdout, sys.stderr
    if sys.stdout is not None and sys.stdout is sys.__stdout__:
        sys.stdout = text_stream(1, OUTPUT, sys.stdout, patient=True)
    if sys.stderr is not None and sys.stderr is sys.__stderr__:
        sys.stderr = text_stream(2, ERRORS, sys.stderr, patient=True)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before
