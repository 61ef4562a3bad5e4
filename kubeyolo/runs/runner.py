"""Starts the steps of a run on this machine: the protocol of all runners, and the runner that starts processes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.memory import death_cause, memory_kills
from kubeyolo.processes import INSTALLED_CODE, UTF8_OUTPUT, ending
from kubeyolo.runs.interrupt import CONTINUES, Interruption, end_step_processes, interruptible
from kubeyolo.storage.cache import cache_root
from kubeyolo.storage.workspace import temporary_folder

_TAIL_LINES = 20
_GRACE_SECONDS = 3.0


@dataclass
class StepEnd:
    """How the process of a step ended; empty before the first step.

    Attributes:
        how: Exit code or signal, as text.
        lines: The last lines on standard output or standard error.
    """

    how: str = ""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))


class StepRunner(Protocol):
    """Runs the steps of a pipeline."""

    def session(self, folder: Path, pipeline: CompiledPipeline) -> AbstractContextManager[Interruption]:
        """Prepare the steps' environment while a pipeline runs, and forward stop signals of this process to the steps.

        Args:
            folder: Folder of the run.
            pipeline: The compiled pipeline.
        """

    def kfp_runner(self) -> Any:
        """Return kfp's runner; called within a session."""

    def end_of_step(self) -> StepEnd:
        """Return how the newest step ended, if known; called within a session."""


class ProcessRunner:
    """Runs each step in a separate process, whose output can always be read and whose exit code is known."""

    def __init__(self) -> None:
        self._end = StepEnd()

    @contextmanager
    def session(self, folder: Path, pipeline: CompiledPipeline) -> Iterator[Interruption]:
        """Send SIGTERM to the running step at a stop signal to this process, and start no further step.

        Within the block kfp starts its processes through this class: kfp itself reports only whether a process
        succeeded, and fails when the output is not in the encoding of the locale.
        """
        from kfp.local import subprocess_task_handler as kfp_processes

        original = kfp_processes.run_local_subprocess
        with interruptible() as interruption:

            def run(full_command: Sequence[str], env_vars: Mapping[str, str] | None = None) -> int:
                if interruption.happened:
                    raise KeyboardInterrupt(CONTINUES)
                return self._run(full_command, env_vars or {})

            kfp_processes.run_local_subprocess = run
            try:
                yield interruption
            finally:
                kfp_processes.run_local_subprocess = original

    def kfp_runner(self) -> Any:
        """Return kfp's runner of processes, in the Python environment of this process."""
        from kfp import local

        return local.SubprocessRunner(use_venv=False)

    def end_of_step(self) -> StepEnd:
        """Return how the process of the newest step ended."""
        return self._end

    def _run(self, command: Sequence[str], variables: Mapping[str, str]) -> int:
        end = self._end = StepEnd()
        before = memory_kills()
        # Without a home folder the cache folder is created here: a folder that a step creates is removed with the step.
        cache_root()
        # The files of a step that is killed are removed with the folder.
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
                # Ctrl-C and the end of a terminal reach only the run, which passes the signals on.
                start_new_session=True,
            ) as process,
        ):
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    end.lines.append(line.rstrip())
                    # kfp has replaced print by a function that indents.
                    print(line, end="")
                # In this way kfp separates the lines of a process from its own lines.
                print("\n")
                code = process.wait()
            except KeyboardInterrupt:
                # For a training this is the second stop request, which ends it at once.
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
