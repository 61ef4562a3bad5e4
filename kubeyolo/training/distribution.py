"""Data-parallel training: the rank of a process, joining the other processes, and waiting for rank 0.

The loss of a process grows with its batch size, or is divided by the number of processes, so the sum of the gradients
over all processes is the gradient of the global batch. In each process, batch normalization computes its statistics
from the images of that process, and the running averages of rank 0 are published, unless
:mod:`kubeyolo.training.sync_bn` has converted the network: then the statistics are those of the global batch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kubeyolo.arrays import AnyArray
from kubeyolo.errors import InputError, WorkError
from kubeyolo.resources import usable_processors
from kubeyolo.work import BARRIER_END, BARRIER_PREFIX, BOUND, OUTCOME_FOLDER

_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Distribution:
    """One of ``world`` training processes."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process logs and writes the output."""
        return self.rank == 0

    def synchronize(self, step: int, ends: bool = False) -> bool:
        """As rank 0, report that the work after a step is done; as any other rank, wait for this report.

        Returns whether the training ends after this step, as rank 0 has decided.

        A collective operation fails after a minute, but metrics or a checkpoint may take longer. Rank 0 writes a
        file into the launcher's folder, and :mod:`kubeyolo.launch.rendezvous` creates the same file on the other
        machines. A process that was started without such a folder does not wait.

        Args:
            step: Number of finished steps.
            ends: Whether this process ends the training after this step.
        """
        folder = os.environ.get(OUTCOME_FOLDER)
        if not folder or self.world == 1:
            return ends
        to_continue = Path(folder) / f"{BARRIER_PREFIX}{step}"
        to_end = to_continue.with_name(f"{to_continue.name}{BARRIER_END}")
        if self.is_first:
            (to_end if ends else to_continue).touch()
        while not to_continue.exists() and not to_end.exists():
            time.sleep(_POLL_SECONDS)
        return to_end.exists()


def distribution_from_environment() -> Distribution:
    """Read the environment variables of msrun; without msrun there is one process."""
    if "MS_ROLE" not in os.environ:
        return Distribution()
    world = int(os.environ.get("MS_WORKER_NUM", os.environ.get("RANK_SIZE", "1")))
    rank = os.environ.get("RANK_ID", os.environ.get("MS_NODE_ID", "0"))
    return Distribution(int(rank), world)


def is_scheduler() -> bool:
    """Tell whether msrun started this process as the scheduler, through which the workers find each other."""
    return os.environ.get("MS_ROLE") == "MS_SCHED"


def join(distribution: Distribution) -> None:
    """Join the other processes, and return when all have joined; in the scheduler, return when all have ended.

    Raises:
        WorkError: The processes could not join, or disagree about their ranks.
    """
    from mindspore import communication

    try:
        communication.init()
        if is_scheduler():
            return
        rank, world = communication.get_rank(), communication.get_group_size()
    except RuntimeError as error:
        line = str(error).strip().splitlines()[0]
        raise WorkError(f"training process {distribution.rank} could not join the others: {line}") from error
    if (rank, world) != (distribution.rank, distribution.world):
        raise WorkError(
            f"training process {distribution.rank} of {distribution.world} was given rank {rank} of {world}"
        )


def arrays_of_first(arrays: Mapping[str, AnyArray], distribution: Distribution) -> dict[str, AnyArray]:
    """Return the arrays of rank 0; every process must call this with the same names and shapes (float32)."""
    if distribution.world == 1 or not arrays:
        return dict(arrays)
    from mindspore import Tensor, ops

    flat = np.concatenate([array.reshape(-1) for array in arrays.values()])
    # A sum to which only rank 0 contributes: a CPU has no kernel for a broadcast.
    share = Tensor(flat if distribution.is_first else np.zeros_like(flat))
    total = ops.AllReduce(ops.ReduceOp.SUM)(share).asnumpy()
    ends = np.cumsum([array.size for array in arrays.values()])
    parts = np.split(total, ends[:-1])
    return {name: part.reshape(array.shape) for (name, array), part in zip(arrays.items(), parts, strict=True)}


def check_early_stop(key: str, patience: int, distribution: Distribution) -> None:
    """Refuse early stopping if rank 0 cannot notify the other processes.

    Args:
        key: Key of the configuration.
        patience: Its value.
        distribution: This process among all processes.

    Raises:
        InputError: There are several processes, and kubeyolo did not start them.
    """
    if patience and distribution.world > 1 and not os.environ.get(OUTCOME_FOLDER):
        raise InputError(
            f"{key} is {patience}, but these {distribution.world} processes were not started by 'kubeyolo train', and "
            "the first process cannot notify the others when to stop; start them with 'kubeyolo train', or set "
            f"{key} to 0"
        )


def threads_for(world: int) -> int:
    """Return how many threads each of ``world`` processes on this machine should use.

    A process that is bound to its share of the processors may use all of this share.
    """
    return max(1, usable_processors() // (1 if os.environ.get(BOUND) else world))


def check_world(key: str, configured: int, distribution: Distribution) -> None:
    """Refuse to train with a number of processes that differs from the configuration.

    Args:
        key: Key of the configuration that sets the number.
        configured: Its value.
        distribution: This process among all processes.

    Raises:
        InputError: The numbers differ; the message names both.
    """
    if distribution.world != configured:
        raise InputError(
            f"{key} is {configured}, but {distribution.world} training processes were started; "
            f"start {configured}, or set {key} to {distribution.world}"
        )
