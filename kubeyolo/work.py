"""The work of worker processes, as launchers see it.

A launcher starts ``processes`` processes of ``python -m MODULE DOCUMENT`` on a machine or in pods. The module is one of
a few; the document is defined by each kind of work for itself.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

OUTCOME_FOLDER = "KUBEYOLO_OUTCOME"
"""Environment variable: folder into which each rank writes ``rank-<n>.json`` at its end."""

BARRIER_PREFIX = "barrier-"
"""Prefix of files in that folder that each end the wait of the other ranks at a barrier."""

WORK = "KUBEYOLO_WORK"
"""Environment variable that holds the :class:`Work` of a pod on a cluster, as JSON."""

DEVICES = "KUBEYOLO_GANG_DEVICES"
"""Environment variable: number of worker processes of a pod, one for each device."""

EXIT_INTERRUPTED = 143
"""Exit code of a process that stopped after a stop signal (128 + SIGTERM); a training has written a checkpoint."""


class Work(BaseModel):
    """What worker processes do.

    Attributes:
        step: Name of the step in the catalogue that the work belongs to.
        name: Name of the work in its run; the name of its job ends with it.
        module: Module of the worker processes, one of those that launchers know.
        document: JSON document that each of them reads.
        output: URI of the folder that receives the result.
        processes: Number of processes.
        is_alone: Whether one process does the work, however many pods and devices the cluster settings name.
        device_target: Device that the processes compute on.
        reads: URIs that the processes read, by what is read; empty URIs are not read.
        memory_remedy: What to lower after memory ran out.
        has_checkpoints: Whether the work continues from checkpoints in its output.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: str
    name: str
    module: str
    document: str
    output: str
    processes: int = 1
    is_alone: bool = False
    device_target: str = "CPU"
    reads: dict[str, str] = {}
    memory_remedy: str
    has_checkpoints: bool = False
