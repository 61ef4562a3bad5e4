"""How many processors and how much memory this process may use: in a container less than the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class ControlGroup(NamedTuple):
    """A control group that limits this process.

    Attributes:
        folder: Where its files are; it may not be there.
        version: 1 or 2.
        controllers: What a group of version 1 limits, such as "memory"; empty in version 2, whose groups limit all.
    """

    folder: Path
    version: int
    controllers: tuple[str, ...] = ()

    def number(self, name: str) -> int | None:
        """Return the number that a file of the group holds; None where it holds none, or is not there."""
        return _number(self.text(name))

    def text(self, name: str) -> str:
        """Return the text of a file of the group; empty where it cannot be read."""
        return _text(self.folder / name)


def usable_processors(root: Path = Path("/")) -> int:
    """Return how many processors this process may use, at least 1.

    That is the number it may run on, or the quota of its control group or of one above it where that is less. A part of
    a processor counts as one.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([available, *(math.ceil(quota) for quota in _quotas(root))]))


def usable_memory(root: Path = Path("/")) -> int | None:
    """Return how many bytes of memory this process may use; None where that is not known.

    That is the memory of the machine, or the limit of its control group or of one above it where that is less. Other
    processes of the group use of it too.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    limits = [_memory_of_machine(root)]
    for group in control_groups(root):
        if group.version == 2:
            limits.append(group.number("memory.max"))
        elif "memory" in group.controllers:
            # Without a limit it is the largest number of pages, more than any machine has.
            limits.append(group.number("memory.limit_in_bytes"))
    return min((limit for limit in limits if limit is not None and limit > 0), default=None)


def control_groups(root: Path = Path("/")) -> Iterator[ControlGroup]:
    """Give the control groups of this process and those above them, of both versions.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    mounts = root / "sys" / "fs" / "cgroup"
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        joined, _, group = rest.partition(":")
        controllers = tuple(joined.split(",")) if joined else ()
        version = 2 if number == "0" and not controllers else 1
        # Beside groups of version 1 those of version 2 have a folder of their own.
        names = (".", "unified") if version == 2 else dict.fromkeys((joined, *controllers))
        for name in names:
            for folder in _upwards(mounts / name, group):
                yield ControlGroup(folder, version, controllers)


def _quotas(root: Path) -> Iterator[float]:
    """Give the quotas of the control groups, in processors; none where there are none, or they cannot be read."""
    for group in control_groups(root):
        time = period = None
        if group.version == 2:
            quota, _, of = group.text("cpu.max").partition(" ")
            time, period = _number(quota), _number(of)
        elif "cpu" in group.controllers:
            time, period = group.number("cpu.cfs_quota_us"), group.number("cpu.cfs_period_us")
        if time and period and time > 0 and period > 0:
            yield time / period


def _memory_of_machine(root: Path) -> int | None:
    for line in _text(root / "proc" / "meminfo").splitlines():
        name, _, size = line.partition(":")
        kilobytes = _number(size.removesuffix("kB"))
        if name == "MemTotal" and kilobytes:
            return 1024 * kilobytes
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """Give the folders of a group and of those above it.

    In a container the name may be that of the host, whose folders are not there; its own group is at the top.
    """
    inside = PurePosixPath(group.lstrip("/"))
    if ".." in inside.parts:  # The group is outside of what the container sees.
        inside = PurePosixPath()
    for part in (inside, *inside.parents):
        yield mount / part


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:  # "max", or nothing.
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
