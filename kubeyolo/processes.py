"""Processes: environment variables for Python children, how a process has ended, children that end with their parent.

``python -m kubeyolo.processes COMMAND ARGUMENT…`` runs a command that is killed when the process that started it ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from kubeyolo import NO_TELEMETRY

UTF8_OUTPUT = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}
"""Environment variables for a Python process whose output this process reads: UTF-8, whatever the console and
locale."""

INSTALLED_CODE = {"PYTHONSAFEPATH": "1"}
"""Environment variables of a Python process that imports nothing from its working folder."""

CONTAINER_VARIABLES = INSTALLED_CODE | NO_TELEMETRY
"""Environment variables of containers, which inherit none from the process that starts them."""

MLFLOW_VARIABLES = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_RUN_ID",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_INSECURE_TLS",
)
"""Environment variables of MLflow's client that steps use; containers of steps receive them from this process."""

IMAGE = "KUBEYOLO_IMAGE"
"""Environment variable of a pod: the reference of its image."""

RUN = "KUBEYOLO_RUN"
"""Environment variable of the steps of a run on one machine, and of the pods of a job: the name of the run."""

_PR_SET_PDEATHSIG = 1
_SIGNALED = 128


def ending(code: int) -> str:
    """Return how a process ended: its exit code, or the name of the signal that killed it."""
    if code < 0:
        return f"killed by {_name(-code) or f'signal {-code}'}"
    # A shell exits with such a code when its command was killed by a signal.
    name = _name(code - _SIGNALED) if code > _SIGNALED else ""
    return f"exit code {code}" + (f", as after {name}" if name else "")


def is_killed(code: int) -> bool:
    """Tell whether SIGKILL ended a process, from its exit code or that of its parent, a shell or msrun."""
    return code in (-signal.SIGKILL, _SIGNALED + signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Tell whether a process with this id exists, whoever its user is; it may have ended without being waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def exit_code(pid: int) -> int | None:
    """Return the exit code of a process that has ended and was not waited for, negative after a signal; else None."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return os.waitstatus_to_exitcode(int(fields[-1])) if fields[0] == "Z" else None


def children(pid: int, root: Path = Path("/")) -> list[int]:
    """Return the ids of the children of a process, including children that have ended and were not waited for.

    Args:
        pid: The process.
        root: The folder with ``proc``.
    """
    try:
        return [int(child) for child in (root / f"proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def send_signal(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to the processes that still exist."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def guarded(command: Sequence[str]) -> list[str]:
    """Return a command that runs another command and is killed when this process ends for any reason."""
    return [sys.executable, "-m", "kubeyolo.processes", *command]


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends. Only Linux supports this; elsewhere nothing happens."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # The parent may have ended before the call.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""


if __name__ == "__main__":
    die_with_parent()
    # exec does not reset this setting.
    os.execvp(sys.argv[1], sys.argv[1:])
