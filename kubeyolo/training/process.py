"""A worker process: how it joins the others, its exit code, and its outcome for the launcher in ``rank-<n>.json``.

What the process computes is a function of its document; :mod:`kubeyolo.training.worker` trains, and
:mod:`kubeyolo.steps.worker` runs a step of a pipeline.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from kubeyolo.errors import InterruptedWork, KubeyoloError, WorkError
from kubeyolo.memory import is_lack_of_memory
from kubeyolo.output_streams import raw_stream, why_lost
from kubeyolo.processes import die_with_parent
from kubeyolo.runtime import configure_mindspore
from kubeyolo.stop_signals import install
from kubeyolo.storage.file_errors import machine_error, system_error
from kubeyolo.training.distribution import Distribution, distribution_from_environment, is_scheduler, join
from kubeyolo.work import EXIT_INTERRUPTED, OUTCOME_FOLDER, Document

logger = logging.getLogger(__name__)

D = TypeVar("D", bound=Document)


def run_process(arguments: list[str], what: str, kind: type[D], run: Callable[[D, Distribution], None]) -> int:
    """Run a worker process and return its exit code: 0 done, 1 failed, 2 bad input, 143 stopped by a signal.

    Args:
        arguments: Arguments of the command line: the path of a document.
        what: Name of the work, for messages.
        kind: Class of the document.
        run: Does the work of a document as one of several processes; it installs the handlers of stop signals.
    """
    if len(arguments) != 1:
        print("usage: python -m MODULE DOCUMENT.json", file=sys.stderr)
        return 2
    die_with_parent()
    distribution = distribution_from_environment()
    if is_scheduler():
        # The scheduler stays until the workers have ended: without it they fail in the step that they must finish.
        install(signal.SIG_IGN)
        configure_mindspore("CPU", 1)
        join(distribution)
        return 0
    code, message = _ending(Path(arguments[0]), what, kind, lambda document: run(document, distribution))
    if not leave_outcome(distribution, code, message) and message:
        print(message, flush=True)
    return code


def _ending(path: Path, what: str, kind: type[D], run: Callable[[D], None]) -> tuple[int, str]:
    """Do the work of a document; return the exit code, and the line that tells why the work is not complete."""
    document = None
    try:
        document = kind.read(path)
        run(document)
    except InterruptedWork as interrupted:
        return EXIT_INTERRUPTED, str(interrupted)
    except KubeyoloError as error:
        logger.debug("%s failed", what, exc_info=True)
        if document is not None and error.exit_code == WorkError.exit_code and is_lack_of_memory(str(error)):
            return error.exit_code, f"{error}; {document.memory_remedy}"
        return error.exit_code, str(error)
    except Exception as error:  # noqa: BLE001 - the last resort: one line for the user, the stack for the log
        name, lacks_memory = type(error).__name__, is_lack_of_memory(f"{type(error).__name__}: {error}")
        system = system_error(error)
        known = machine_error(system) if system and not lacks_memory else None
        if known is not None:
            logger.debug("%s failed", what, exc_info=True)
            return known.exit_code, str(known)
        traceback.print_exc()
        reason = f"{name}: {_informative_line(str(error), lacks_memory)}".removesuffix(": ")
        if document is not None and lacks_memory:
            return 1, f"out of memory ({reason}); {document.memory_remedy}"
        return 1, f"{what} failed: {reason}"
    return 0, ""


def _informative_line(text: str, of_memory: bool) -> str:
    """Return the most informative line of an error: MindSpore's errors start with separators and headings."""
    lines = [line.strip() for line in text.splitlines() if any(map(str.isalnum, line))]
    about_memory = [line for line in lines if of_memory and is_lack_of_memory(line)]
    return next(iter([*about_memory, *lines]), "")


def leave_outcome(distribution: Distribution, code: int, message: str) -> bool:
    """Write the outcome for the launcher, if there is one: msrun does not pass exit codes on."""
    folder = os.environ.get(OUTCOME_FOLDER)
    if folder:
        raw = raw_stream(sys.stdout)
        lost = why_lost(raw.lost) if raw is not None and raw.lost is not None else ""
        document = {"rank": distribution.rank, "exit_code": code, "message": message, "lost": lost}
        path = Path(folder) / f"rank-{distribution.rank}.json"
        part = path.with_suffix(".part")
        try:
            part.write_text(json.dumps(document))
            part.rename(path)
        except OSError:
            return False  # The disk may be full even if the work itself is done.
    return bool(folder)
