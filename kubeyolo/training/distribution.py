"""Data-parallel training: who we are, and the sum of gradients over all processes.

The loss of a process is already times its batch size, so the sum over processes is the gradient of the global batch.
Batch normalisation takes its statistics from the images of one process; the averages that are kept are those of
rank 0.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from kubeyolo.errors import InputError, WorkError
from kubeyolo.processors import usable_processors
from kubeyolo.training.spec import MET_PREFIX, OUTCOME_FOLDER

_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Distribution:
    """One process among ``world``."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that logs and writes."""
        return self.rank == 0


class Meeting:
    """Where the other processes wait while rank 0 validates or writes a checkpoint.

    A collective gives up after a minute, and such work may take longer. Rank 0 leaves a file in the launcher's folder,
    which :mod:`kubeyolo.launch.gang` passes on to other machines; without that folder nobody waits here.
    """

    def __init__(self, distribution: Distribution, folder: str | None = None) -> None:
        folder = os.environ.get(OUTCOME_FOLDER) if folder is None else folder
        self._folder = Path(folder) if folder and distribution.world > 1 else None
        self._is_first = distribution.is_first

    def __call__(self, step: int) -> None:
        """Say as rank 0 that the work after a step is done, or wait until rank 0 has said so."""
        if self._folder is None:
            return
        path = self._folder / f"{MET_PREFIX}{step}"
        if self._is_first:
            path.touch()
        while not path.exists():
            time.sleep(_POLL_SECONDS)


def distribution_from_environment() -> Distribution:
    """Read what msrun tells its processes; without msrun there is one process."""
    if "MS_ROLE" not in os.environ:
        return Distribution()
    world = int(os.environ.get("MS_WORKER_NUM", os.environ.get("RANK_SIZE", "1")))
    rank = os.environ.get("RANK_ID", os.environ.get("MS_NODE_ID", "0"))
    return Distribution(int(rank), world)


def is_scheduler() -> bool:
    """Tell whether msrun started this process to introduce the others to each other."""
    return os.environ.get("MS_ROLE") == "MS_SCHED"


def join(distribution: Distribution) -> None:
    """Meet the other processes; returns when all are there. A scheduler stays until they are gone.

    Raises:
        WorkError: The processes did not meet, or disagree about their numbers.
    """
    from mindspore import communication

    try:
        communication.init()
        if is_scheduler():
            return
        found = (communication.get_rank(), communication.get_group_size())
    except RuntimeError as error:
        line = str(error).strip().splitlines()[0]
        raise WorkError(f"training process {distribution.rank} could not join the others: {line}") from error
    if found != (distribution.rank, distribution.world):
        raise WorkError(
            f"training process {distribution.rank} of {distribution.world} was given rank {found[0]} of {found[1]}"
        )


def threads_for(world: int) -> int:
    """Return how many threads one of ``world`` processes of this machine should use."""
    return max(1, usable_processors() // world)


def check_world(configured: int, distribution: Distribution) -> None:
    """Refuse to train with another number of processes than was asked for.

    Raises:
        InputError: Names both numbers.
    """
    if distribution.world != configured:
        raise InputError(
            f"train.processes is {configured}, but {distribution.world} training processes were started; "
            "start as many as the configuration says"
        )
