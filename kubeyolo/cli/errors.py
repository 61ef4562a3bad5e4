"""How a command ends after an error: one line on standard error, the stack trace in a log, and an exit code."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from kubeyolo.cli.streams import CLOSED_OUTPUT, discard, lost_output
from kubeyolo.errors import InterruptedWork, KubeyoloError, WorkError, message_line
from kubeyolo.output_streams import OUTPUT
from kubeyolo.stop_signals import StopOrder
from kubeyolo.storage.cache import cache_folder
from kubeyolo.storage.file_errors import known_error, machine_error, missing_current_folder

DEBUG = "KUBEYOLO_DEBUG"
"""Environment variable that makes commands print the stack trace of an error."""

UNEXPECTED, BAD_USAGE, INTERRUPTED = 1, 2, 130

# typer has its own copy of click; this is its base class for usage errors.
_UsageError: Any = typer.BadParameter.__bases__[0]


def exit_code_of(command: Callable[[], Any], arguments: Sequence[str], order: StopOrder | None = None) -> int:
    """Call a command and return its exit code; an error is printed as one line.

    Args:
        command: The command to call.
        arguments: The command line, for the log.
        order: Records the stop signal that this process received, if there was one.
    """
    try:
        result = command()
        sys.stdout.flush()
    except InterruptedWork as error:
        _say(str(error))
        return INTERRUPTED
    except KubeyoloError as error:
        return _failed(error, error, arguments)
    except _UsageError as error:
        return _usage(error, arguments)
    except (KeyboardInterrupt, typer.Abort):
        _say(_interrupted(order))
        return INTERRUPTED
    except (OSError, SystemExit) as error:
        return _system(error, arguments)
    except Exception as error:
        return _failed(error, known_error(error), arguments)
    if result == INTERRUPTED:
        _say(_interrupted(order))
    lost = lost_output() if not result else ""
    if lost:
        _say(lost)
        return WorkError.exit_code
    return result if isinstance(result, int) else 0


def debug_log() -> Path:
    """Return the path of the log of stack traces, in the cache folder."""
    return cache_folder("logs") / "debug.log"


def _interrupted(order: StopOrder | None) -> str:
    number = None if order is None else order.number
    by = "" if number is None else f" by {signal.Signals(number).name}"
    return f"interrupted{by}; no incomplete output is left, and the same command can be run again"


def _say(message: str) -> None:
    # An argument may have bytes that are not UTF-8, which Python keeps as lone surrogates.
    text = message_line(message).encode("utf-8", "backslashreplace").decode("utf-8")
    # Standard error may be closed, or on a full disk too: the exit code still reports the error.
    try:
        print(f"error: {text}", file=sys.stderr, flush=True)
    except OSError:
        discard(2)


def _system(error: OSError | SystemExit, arguments: Sequence[str]) -> int:
    """Print the error from a system call, and return the exit code."""
    if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
        raise error
    known: KubeyoloError | None
    # rich exits when the reader of a pipe closes it.
    if isinstance(error, SystemExit) or (isinstance(error, BrokenPipeError) and error.filename == OUTPUT):
        known = WorkError(CLOSED_OUTPUT)
    elif error.filename == OUTPUT:
        known = WorkError(f"{OUTPUT}: {error.strerror}; text that was not printed is lost")
    else:
        known = machine_error(error) or missing_current_folder(error)
    if isinstance(error, SystemExit) or error.filename == OUTPUT:
        discard(1)
    return _failed(error, known, arguments)


def _failed(error: BaseException, known: KubeyoloError | None, arguments: Sequence[str]) -> int:
    """Log the stack trace of an error, print its line, and return the exit code."""
    log = _log(arguments)
    _say(str(known) if known else f"unexpected {type(error).__name__}: {error}; {log}")
    return known.exit_code if known else UNEXPECTED


def _usage(error: Any, arguments: Sequence[str]) -> int:
    context = error.ctx
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return BAD_USAGE
    # Imported here: the module reads the configuration, which help does not need.
    from kubeyolo.cli.foreign_options import remedy, remedy_for_pairs

    path = context.command_path if context is not None else "kubeyolo"
    what = error.format_message().rstrip(".")
    if type(error).__name__ == "NoSuchOption":
        meant = remedy(error.option_name, path.partition(" ")[2], arguments)
        what = what if meant is None else f"{error.message}{meant}"
    elif context is not None and what.startswith("Got unexpected extra argument"):
        options = {option for parameter in context.command.params for option in parameter.opts}
        what += remedy_for_pairs(path.partition(" ")[2], arguments, options)
    _say(f"{what}; see '{path} --help'")
    return BAD_USAGE


def _log(arguments: Sequence[str]) -> str:
    """Append the stack trace of the current error to the log; return a text that tells where the stack trace is."""
    stack = traceback.format_exc()
    if os.environ.get(DEBUG):
        print(stack.encode("utf-8", "backslashreplace").decode("utf-8"), file=sys.stderr)
    path = debug_log()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} kubeyolo {shlex.join(arguments)}\n{stack}\n")
    except OSError:
        return f"the log {path} cannot be written; run with --debug to print the stack trace"
    return f"the stack trace is in {path}"
