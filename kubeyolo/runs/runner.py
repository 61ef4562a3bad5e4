"""How the steps of a run on this machine are started, and how they end when the run is interrupted."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from kubeyolo.runs.interrupt import Interruption, interruptible


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


class ProcessRunner:
    """Each step in a process of its own."""

    def session(self, folder: Path, pipeline: str) -> AbstractContextManager[Interruption]:
        """Send the running step SIGTERM when this process is told to end."""
        return interruptible()

    def kfp_runner(self) -> Any:
        """Return kfp's runner of processes, in the environment of this one."""
        from kfp import local

        return local.SubprocessRunner(use_venv=False)
