"""How many processors and how much memory this process may use: in a container less than the machine has."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_NO_LIMIT = 1 << 60
"""Bytes: a control group of version 1 that has no limit reports a number above this number."""


def usable_processors(root: Path = Path("/")) -> int:
    """Return how many processors this process may use, at least 1.

    This is the number of processors that it may run on, or a lower quota of its control group or of a group above it.
    A fraction is rounded up.

    Args:
        root: The folder with ``proc`` and ``sys``.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([available, *(math.ceil(quota) for quota in _quotas(root))]))


def processor_name(root: Path = Path("/")) -> str:
    """Return the name of the processor as the kernel has it; its architecture if there is no name.

    Args:
        root: The folder with ``proc``.
    """
    lines = text_of(root / "proc" / "cpuinfo").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Hardware")))
    return next(filter(None, names), "") or platform.machine()


def usable_memory(root: Path = Path("/")) -> int | None:
    """Return how many bytes of memory this process may use; None if unknown.

    This is the memory of the machine, or a lower limit of its control group or of a group above it. Other processes of
    the group use the same memory.

    Args:
        root: The folder with ``proc`` and ``sys``.
    """
    limits = (_memory_of_machine(root), memory_limit(root))
    return min((limit for limit in limits if limit), default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return the lowest memory limit in bytes of this process's control group and of the groups above it, or None."""
    names = {1: "memory.limit_in_bytes", 2: "memory.max"}
    texts = [text_of(folder / names[version]).strip() for version, folder in group_folders("memory", root)]
    return min((int(text) for text in texts if text.isdigit() and int(text) < _NO_LIMIT), default=None)


def group_folders(controller: str, root: Path = Path("/")) -> Iterator[tuple[int, Path]]:
    """Yield version and folder of each control group with a controller, upwards from the group of this process.

    Some of the folders may not exist: in a container a group may have the name that it has on the host.

    Args:
        controller: ``cpu`` or ``memory``.
        root: The folder with ``proc`` and ``sys``.
    """
    mounts = root / "sys" / "fs" / "cgroup"
    for line in text_of(root / "proc" / "self" / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            # Next to groups of version 1, groups of version 2 have a folder of their own.
            for mount in (mounts, mounts / "unified"):
                yield from ((2, folder) for folder in _upwards(mount, group))
        elif controller in controllers.split(","):
            for mount in dict.fromkeys((mounts / controllers, mounts / controller)):
                yield from ((1, folder) for folder in _upwards(mount, group))


def text_of(path: Path) -> str:
    """Return the text of a file of the kernel; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quotas of the control groups, in processors; leave out groups without a readable quota."""
    names = {1: ("cpu.cfs_quota_us", "cpu.cfs_period_us"), 2: ("cpu.max",)}
    for version, folder in group_folders("cpu", root):
        with suppress(ValueError):  # "max", or no such file.
            quota, period = map(int, " ".join(text_of(folder / name) for name in names[version]).split())
            if quota > 0 and period > 0:
                yield quota / period


def _memory_of_machine(root: Path) -> int | None:
    for line in text_of(root / "proc" / "meminfo").splitlines():
        name, _, size = line.partition(":")
        kilobytes = size.removesuffix("kB").strip()
        if name == "MemTotal" and kilobytes.isdigit():
            return 1024 * int(kilobytes)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """Yield the folders of a group and of the groups above it.

    In a container the name may be the name on the host, for which no folders exist; the container's own group is at
    the top.
    """
    inside = PurePosixPath(group.lstrip("/"))
    if ".." in inside.parts:  # The container does not see the folder of the group.
        inside = PurePosixPath()
    for part in (inside, *inside.parents):
        yield mount / part
