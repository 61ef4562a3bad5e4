"""The standard streams of a command: they accept any text on any console, and can be reserved for a result."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from collections.abc import Iterator

from kubeyolo.output_streams import ERRORS, OUTPUT, raw_stream, text_stream, why_lost

CLOSED_OUTPUT = f"{OUTPUT}: closed by the program that reads it; text that was not printed is lost"

_UTF8 = "utf-8"
_HANDLER = "kubeyolo-console"

# Characters in our messages, and their replacements on consoles that lack them.
_INSTEAD = {"▶": ">", "•": "*", "✓": "+", "✗": "x", "–": "-", "—": "-", "…": "...", "×": "x", "→": "->", "·": "."}


def run_in_utf8() -> None:
    """Start this process again in Python's UTF-8 mode if the locale is not UTF-8; the console keeps its encoding.

    Names in data sets and stores are UTF-8. Otherwise Python and libraries would use the encoding of the locale for
    names and contents of files.
    """
    if sys.flags.utf8_mode or not sys.executable or _is_utf8(sys.getfilesystemencoding()):
        return
    console = os.environ.get("PYTHONIOENCODING") or getattr(sys.stdout, "encoding", None) or "ascii"
    environment = os.environ | {"PYTHONUTF8": "1", "PYTHONIOENCODING": console}
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], environment)


def prepare_streams() -> None:
    """Let the standard streams accept any text, even if they are closed.

    A character that the console lacks is replaced by a similar character, or by its number in Unicode. Closed streams
    are redirected to the null device, so that no file that is opened later gets their descriptor. The error of a
    failed write names standard output. Text that cannot be written to standard error is lost.
    """
    codecs.register_error(_HANDLER, _written_otherwise)
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It takes the lowest number that is free.
    sys.stdin = sys.stdin or open(0, encoding=_UTF8)  # noqa: SIM115 - for as long as the process lives
    sys.stdout = text_stream(1, OUTPUT, sys.stdout, _HANDLER)
    sys.stderr = text_stream(2, ERRORS, sys.stderr, _HANDLER, patient=True)


def discard(descriptor: int) -> None:
    """Redirect a closed stream to the null device, because Python flushes the buffer of the stream at exit."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


@contextlib.contextmanager
def only_result(as_json: bool) -> Iterator[None]:
    """Send everything that this process and its children print within the block to standard error, if JSON follows."""
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


@contextlib.contextmanager
def stored_work(as_json: bool) -> Iterator[None]:
    """Run a block whose result is stored: it continues even if standard output cannot be written.

    From then to the end of the command, text that cannot be printed is lost; :func:`lost_output` returns the reason.
    Within the block nothing is printed to standard output if JSON is to follow, see :func:`only_result`.
    """
    raw = raw_stream(sys.stdout)
    if raw is not None:
        raw.patient = True
    with only_result(as_json):
        yield


def lost_output() -> str:
    """Return a message why lines of stored work could not be printed; empty if all lines were printed."""
    raw = raw_stream(sys.stdout)
    if raw is None or raw.lost is None:
        return ""
    return f"{OUTPUT}: {why_lost(raw.lost)}; the work is done and stored, and text that was not printed is lost"


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name == _UTF8


def _written_otherwise(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return replacements for characters that an encoding lacks (an error handler for ``codecs``)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    rest = error.object[error.start : error.end]
    return "".join(_INSTEAD.get(character) or _escaped(character) for character in rest), error.end


def _escaped(character: str) -> str:
    # As in JSON, so that a document stays one.
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
