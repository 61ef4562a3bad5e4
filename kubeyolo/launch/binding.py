"""Binding of processes to processors: the option of msrun, and each process's share of the processors."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from kubeyolo.errors import InputError
from kubeyolo.formats import counted
from kubeyolo.work import Work

OPTION = "--bind_core"


def binding_options(work: Work, processes: int) -> list[str]:
    """Return the options with which msrun binds the processes of this machine; empty if it does not bind them.

    On Ascend, msrun assigns the processors that are next to each device. On processors alone, each process gets an
    equal share of the processors of this process, in the order of their numbers, so that a share lies in one NUMA node
    if it fits.

    Args:
        work: The work of the processes.
        processes: Number of processes on this machine.

    Raises:
        InputError: This version of MindSpore has no such option, taskset is missing, or there are too few processors.
    """
    if not work.bind_core:
        return []
    if not _msrun_binds():
        raise InputError(
            f"train.bind_core = true: msrun of the installed MindSpore has no option {OPTION}; install a version from "
            "2.7.0 on, or set train.bind_core=false"
        )
    if shutil.which("taskset") is None:
        raise InputError(
            "train.bind_core = true: the program taskset, with which msrun binds processes, is not installed; install "
            "the package util-linux, or set train.bind_core=false"
        )
    if work.device_target != "CPU":
        return [f"{OPTION}=True"]
    available = sorted(os.sched_getaffinity(0))
    if len(available) < processes:
        raise InputError(
            f"train.bind_core = true: {processes} processes on this machine may use only "
            f"{counted(len(available), 'processor')}; train fewer processes, or set train.bind_core=false"
        )
    shares = {f"device{number}": ranges(share) for number, share in enumerate(equal_shares(available, processes))}
    return [f"{OPTION}={json.dumps(shares)}"]


def equal_shares(processors: Sequence[int], count: int) -> list[list[int]]:
    """Divide processors into shares of adjacent processors, of equal size or one more."""
    bounds = [len(processors) * number // count for number in range(count + 1)]
    return [list(processors[first:last]) for first, last in zip(bounds, bounds[1:], strict=False)]


def ranges(processors: Sequence[int]) -> list[str]:
    """Return ascending numbers as ranges of adjacent numbers: ``["0-3", "8-8"]``."""
    runs = groupby(enumerate(processors), lambda pair: pair[1] - pair[0])
    numbers = [[number for _, number in run] for _, run in runs]
    return [f"{run[0]}-{run[-1]}" for run in numbers]


def _msrun_binds() -> bool:
    """Tell whether msrun has the option, without importing MindSpore."""
    package = importlib.util.find_spec("mindspore")
    folders = package.submodule_search_locations if package else None
    program = Path(folders[0]) / "parallel" / "cluster" / "run.py" if folders else None
    return program is not None and program.is_file() and f'"{OPTION}"' in program.read_text(encoding="utf-8")
