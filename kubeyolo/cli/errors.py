"""How a command ends: one line on standard error, the stack in a log, and an exit code."""

from __future__ import annotations

import os
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from kubeyolo.errors import InterruptedWork, KubeyoloError, one_line

DEBUG = "KUBEYOLO_DEBUG"
"""Environment variable that prints the stack of an error."""

UNEXPECTED, BAD_USAGE, INTERRUPTED = 1, 2, 130

# typer has its own copy of click; this is its base class of wrong usage, wherever it lies.
_UsageError: Any = typer.BadParameter.__bases__[0]


def exit_code_of(command: Callable[[], Any], arguments: Sequence[str]) -> int:
    """Call a command and return its exit code, after its error, if it has one, is told in one line."""
    try:
        result = command()
    except InterruptedWork as error:
        _say(str(error))
        return INTERRUPTED
    except KubeyoloError as error:
        _log(arguments)
        _say(str(error))
        return error.exit_code
    except _UsageError as error:
        return _usage(error)
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted; the same command continues")
        return INTERRUPTED
    except Exception as error:
        log = _log(arguments)
        _say(f"unexpected {type(error).__name__}: {error}; the stack is in {log}")
        return UNEXPECTED
    if result == INTERRUPTED:
        _say("interrupted")
    return result if isinstance(result, int) else 0


def debug_log() -> Path:
    """Return the path of the log of stacks, in ``$KUBEYOLO_CACHE`` or ``~/.cache/kubeyolo``."""
    from kubeyolo.storage.cache import cache_folder

    return cache_folder("logs") / "debug.log"


def _say(message: str) -> None:
    # An argument may have bytes that are not UTF-8, which Python keeps as lone surrogates.
    text = one_line(message).encode("utf-8", "backslashreplace").decode("utf-8")
    print(f"error: {text}", file=sys.stderr)


def _usage(error: Any) -> int:
    context = error.ctx
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return BAD_USAGE
    path = context.command_path if context is not None else "kubeyolo"
    _say(f"{error.format_message().rstrip('.')}; see '{path} --help'")
    return BAD_USAGE


def _log(arguments: Sequence[str]) -> str:
    """Append the stack of the present error to the log and return its path, or words when it cannot be written."""
    stack = traceback.format_exc()
    if os.environ.get(DEBUG):
        print(stack.encode("utf-8", "backslashreplace").decode("utf-8"), file=sys.stderr)
    path = debug_log()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} kubeyolo {shlex.join(arguments)}\n{stack}\n")
    except OSError:
        return f"nothing: {path} cannot be written; run with --debug"
    return str(path)
