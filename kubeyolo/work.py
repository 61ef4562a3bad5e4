"""The work of worker processes, as launchers see it.

A launcher starts ``processes`` processes of ``python -m MODULE DOCUMENT`` on a machine or in pods. The module is one of
a few; the document is defined by each kind of work for itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from kubeyolo.documents import read_model
from kubeyolo.errors import InputError, first_problem
from kubeyolo.regular_files import DOCUMENT_SIZE, read_regular

OUTCOME_FOLDER = "KUBEYOLO_OUTCOME"
"""Environment variable: folder into which each rank writes ``rank-<n>.json`` at its end."""

BARRIER_PREFIX = "barrier-"
"""Prefix of files in that folder that each end the wait of the other ranks at a barrier."""

BARRIER_END = "-end"
"""Suffix of the name of such a file if rank 0 ends the work there."""

WORK = "KUBEYOLO_WORK"
"""Environment variable that holds the :class:`Work` of a pod on a cluster, as JSON."""

DEVICES = "KUBEYOLO_GANG_DEVICES"
"""Environment variable: number of worker processes of a pod, one for each device."""

BOUND = "KUBEYOLO_BOUND"
"""Environment variable that is set if each process runs on processors of its own."""

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
        device_target: Device that the processes compute on.
        reads: URIs that the processes read, by what is read; empty URIs are not read.
        memory_remedy: What to lower after memory ran out.
        has_checkpoints: Whether the work continues from checkpoints in its output.
        bind_core: Whether each process runs on processors of its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: str
    name: str
    module: str
    document: str
    output: str
    processes: int = 1
    device_target: str = "CPU"
    reads: dict[str, str] = {}
    memory_remedy: str
    has_checkpoints: bool = False
    bind_core: bool = False


class Document(BaseModel, ABC):
    """What each worker process reads; a kind of work has a class of its own.

    Attributes:
        kind: What the document is, for errors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: ClassVar[str]

    @property
    @abstractmethod
    def memory_remedy(self) -> str:
        """What to lower after memory ran out."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the document.

        Raises:
            InputError: The file is missing, or is not such a document.
        """
        try:
            return read_model(read_regular(path, DOCUMENT_SIZE), cls, str(path))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        except ValidationError as error:
            raise InputError(f"{path}: is not {cls.kind}: {first_problem(error)}") from error
