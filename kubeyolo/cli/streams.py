"""The standard streams of a command: made fit for any text, whatever the console can show, and kept for a result."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

OUTPUT = "standard output"
"""What an error of writing there has in place of the name of a file."""

CLOSED_OUTPUT = f"{OUTPUT}: closed by the program that reads it; what was not printed is lost"

_UTF8 = "utf-8"
_HANDLER = "kubeyolo-console"

# What our own lines are drawn with, for consoles that do not have it.
_INSTEAD = {"▶": ">", "•": "*", "✓": "+", "✗": "x", "–": "-", "—": "-", "…": "...", "×": "x", "→": "->", "·": "."}


def run_in_utf8() -> None:
    """Begin this process again in Python's UTF-8 mode where the locale has another encoding; the console keeps its own.

    Names in data sets and stores are UTF-8. Python would look for them in the encoding of the locale, and read and
    write files in it, its own and those of libraries.
    """
    if sys.flags.utf8_mode or not sys.executable or _is_utf8(sys.getfilesystemencoding()):
        return
    console = os.environ.get("PYTHONIOENCODING") or getattr(sys.stdout, "encoding", None) or "ascii"
    environment = os.environ | {"PYTHONUTF8": "1", "PYTHONIOENCODING": console}
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], environment)


def prepare_streams() -> None:
    """Let the standard streams take any text, also where they are closed.

    A character that the console does not have is written as another one, or as its number in Unicode. Closed streams
    lead to nowhere, so that no file that is opened later takes their number. An error of writing has the name of the
    stream.
    """
    codecs.register_error(_HANDLER, _written_otherwise)
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It takes the lowest number that is free.
    sys.stdin = sys.stdin or open(0, encoding=_UTF8)  # noqa: SIM115 - for as long as the process lives
    sys.stdout = _stream(1, OUTPUT, sys.stdout)
    sys.stderr = _stream(2, "standard error", sys.stderr)


def discard(descriptor: int) -> None:
    """Let a stream that takes no more lead to nowhere: the interpreter writes what the stream holds when it ends."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


@contextlib.contextmanager
def only_result(as_json: bool) -> Iterator[None]:
    """Send to standard error, within the block, what this process and its children print, if JSON is to follow it."""
    if not as_json:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


class _NamedStream(io.FileIO):
    """A standard stream whose errors have its name."""

    def __init__(self, descriptor: int, words: str) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._words = words

    def write(self, data: Any, /) -> Any:
        try:
            return super().write(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._words) from None


def _stream(descriptor: int, words: str, present: TextIO | None) -> TextIO:
    if present is not None:
        present.flush()
    encoding = getattr(present, "encoding", None) or _UTF8
    at_once = descriptor == 2 or os.isatty(descriptor) or bool(getattr(present, "write_through", False))
    raw = io.BufferedWriter(_NamedStream(descriptor, words))
    return io.TextIOWrapper(raw, encoding=encoding, errors=_HANDLER, line_buffering=at_once, write_through=at_once)


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name == _UTF8


def _written_otherwise(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what is written in place of characters that an encoding does not have; a handler of ``codecs``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    rest = error.object[error.start : error.end]
    return "".join(_INSTEAD.get(character) or _escaped(character) for character in rest), error.end


def _escaped(character: str) -> str:
    # As in JSON, so that a document stays one.
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
