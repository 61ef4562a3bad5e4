"""Standard output and standard error as streams whose errors name the stream, or that discard unwritable output."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from kubeyolo.printable import escaped, escaped_but_colors

Show = Callable[[str], None]
"""Shows a line."""

OUTPUT, ERRORS = "standard output", "standard error"
"""Names of the streams in errors."""


class OutputStream(io.FileIO):
    """A standard stream whose errors name the stream.

    A ``patient`` stream discards output that cannot be written, so that the work continues. As soon as a full disk has
    free space again, later lines are written.

    Attributes:
        patient: Whether output that cannot be written is discarded.
        lost: The first error after which output was discarded; None if there was no such error.
    """

    def __init__(self, descriptor: int, name: str, patient: bool = False) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._label = name
        self.patient = patient
        self.lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write all or some of the data; return how many bytes were written, or discarded by a patient stream.

        Raises:
            OSError: The data cannot be written, and the stream is not patient.
        """
        try:
            while (count := super().write(data)) is None:
                # A different program that shares the terminal or the pipe has made it non-blocking.
                select.select([], [self.fileno()], [])
            return count
        except OSError as error:
            if not self.patient:
                raise OSError(error.errno, error.strerror, self._label) from None
            if self.lost is None:
                self.lost = error
                if self._label != ERRORS:
                    lost = "the work continues, and output that is not printed is lost"
                    print(f"warning: {self._label}: {why_lost(error)}; {lost}", file=sys.stderr, flush=True)
            return len(data)


class SafeText(io.TextIOWrapper):
    """A standard stream that prints control, direction and invisible characters as their numbers.

    On a terminal the sequences that set colours are kept. Code that moves the cursor, such as a progress bar, escapes
    its texts and writes them to :attr:`unescaped`.
    """

    def __init__(self, raw: Any, is_terminal: bool, **options: Any) -> None:
        super().__init__(raw, **options)
        self._escape = escaped_but_colors if is_terminal else escaped

    def write(self, text: str, /) -> int:
        """Write a text; return its number of characters."""
        super().write(self._escape(text))
        return len(text)

    @property
    def unescaped(self) -> Unescaped:
        """The same stream for texts that are already escaped."""
        return Unescaped(self)


class Unescaped:
    """A :class:`SafeText` whose texts are written unchanged."""

    def __init__(self, stream: SafeText) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        """Write a text; return its number of characters."""
        return io.TextIOWrapper.write(self._stream, text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def unescaped(stream: Any) -> Any:
    """Return a stream for texts that are already escaped, such as those of :class:`kubeyolo.consoles.SafeConsole`."""
    return stream.unescaped if isinstance(stream, SafeText) else stream


def print_line(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def why_lost(error: OSError) -> str:
    """Return the reason why a stream cannot be written, as a phrase."""
    if error.errno == errno.EPIPE:
        return "closed by the program that reads it"
    if error.errno == errno.EIO:
        return "the terminal is gone"
    return error.strerror or str(error)


def text_stream(
    descriptor: int, name: str, present: TextIO | None, errors: str | None = None, patient: bool = False
) -> TextIO:
    """Return a :class:`SafeText` that replaces the current stream and has its encoding.

    Args:
        descriptor: 1 or 2.
        name: ``OUTPUT`` or ``ERRORS``.
        present: The current stream; None if it is closed.
        errors: How to write characters that the encoding lacks; by default as the current stream does.
        patient: Whether to discard output that cannot be written instead of raising an error.
    """
    if present is not None:
        present.flush()
    encoding = getattr(present, "encoding", None) or "utf-8"
    errors = errors or getattr(present, "errors", None) or "backslashreplace"
    is_terminal = os.isatty(descriptor)
    at_once = descriptor == 2 or is_terminal or bool(getattr(present, "write_through", False))
    raw = io.BufferedWriter(OutputStream(descriptor, name, patient))
    options = {"encoding": encoding, "errors": errors, "line_buffering": at_once, "write_through": at_once}
    return SafeText(raw, is_terminal, **options)


def raw_stream(stream: TextIO | None) -> OutputStream | None:
    """Return the :class:`OutputStream` below a text stream; None if there is none."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, OutputStream) else None


@contextmanager
def patient_streams() -> Iterator[None]:
    """Let the work within the block continue when its output cannot be written.

    Streams of this process that were replaced by other streams are not changed.
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
