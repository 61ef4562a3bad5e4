"""The process of a step, as kfp starts it, with an output that can always be read and an end that is known."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from kubeyolo.exits import INSTALLED_CODE, UTF8_OUTPUT, ending
from kubeyolo.memory import death_cause, memory_kills
from kubeyolo.runs.interrupt import CONTINUES, Interruption, end_step_processes
from kubeyolo.storage.cache import cache_root
from kubeyolo.storage.workspace import temporary_folder

_TAIL_LINES = 20

_GRACE_SECONDS = 3.0


@dataclass
class StepEnd:
    """How the process of a step ended; empty before there was one.

    Attributes:
        how: Its exit code or signal, in words.
        lines: The last lines that it has printed, to standard output or standard error.
    """

    how: str = ""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))


@contextmanager
def step_processes_watched(interruption: Interruption) -> Iterator[StepEnd]:
    """Let kfp, within the block, start its processes by this module, and note how the newest one ended.

    kfp tells of a process only whether it succeeded, and fails itself when the output is not in the encoding of the
    locale. No step is started any more once the run was interrupted, also where the one before it was just done.
    """
    from kfp.local import subprocess_task_handler as kfp_processes

    end = StepEnd()

    def run(full_command: Sequence[str], env_vars: Mapping[str, str] | None = None) -> int:
        if interruption.happened:
            raise KeyboardInterrupt(CONTINUES)
        return _run(full_command, env_vars or {}, end)

    theirs = kfp_processes.run_local_subprocess
    kfp_processes.run_local_subprocess = run
    try:
        yield end
    finally:
        kfp_processes.run_local_subprocess = theirs


def _run(command: Sequence[str], variables: Mapping[str, str], end: StepEnd) -> int:
    end.how = ""
    end.lines.clear()
    before = memory_kills()
    # Where there is no home, the folder of copies is made here: that of the step goes with the step.
    cache_root()
    # What a step leaves that is killed goes with the folder.
    with (
        temporary_folder("step") as temporary,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **UTF8_OUTPUT, **INSTALLED_CODE, **variables, "TMPDIR": str(temporary)},
            encoding="utf-8",
            errors="backslashreplace",
            bufsize=1,
            # Ctrl-C of a terminal, and its end, come to the run alone, which passes them on.
            start_new_session=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                end.lines.append(line.rstrip())
                # kfp has put its own function, which indents, in the place of print.
                print(line, end="")
            # So kfp parts the lines of a process from its own.
            print("\n")
            code = process.wait()
        except KeyboardInterrupt:
            # For a training this is the second order, which ends it at once.
            _end_at_once(process)
            raise
        except BaseException:
            end_step_processes()
            raise
    end.how = ending(code) + death_cause(code, before)
    return code


def _end_at_once(process: subprocess.Popen[str]) -> None:
    end_step_processes(signal.SIGINT)
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
