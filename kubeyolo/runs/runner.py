"""How the steps of a run on this machine are started, and how they end when the run is interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from kubeyolo.runs.interrupt import Interruption, interruptible
from kubeyolo.runs.step_process import StepEnd, step_processes_watched


class StepRunner(Protocol):
    """What a run needs to know of how its steps are run."""

    def session(self, folder: Path, pipeline: str) -> AbstractContextManager[Interruption]:
        """Have ready, while a pipeline runs, what its steps need, and tell them to end when this process is told to.

        Args:
            folder: Folder of the run.
            pipeline: The compiled pipeline.
        """

    def kfp_runner(self) -> Any:
        """Return kfp's runner; called within a session."""

    def end_of_step(self) -> StepEnd:
        """Return how the newest step ended, as far as it is known; called within a session."""


class ProcessRunner:
    """Each step in a process of its own."""

    def __init__(self) -> None:
        self._end = StepEnd()

    @contextmanager
    def session(self, folder: Path, pipeline: str) -> Iterator[Interruption]:
        """Send the running step SIGTERM when this process is told to end."""
        with interruptible() as interruption, step_processes_watched(interruption) as self._end:
            yield interruption

    def kfp_runner(self) -> Any:
        """Return kfp's runner of processes, in the environment of this one."""
        from kfp import local

        return local.SubprocessRunner(use_venv=False)

    def end_of_step(self) -> StepEnd:
        """Return how the process of the newest step ended."""
        return self._end
