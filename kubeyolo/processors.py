"""How many processors this process may use: in a container fewer than the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_processors(root: Path = Path("/")) -> int:
    """Return how many processors this process may use, at least 1.

    That is the number it may run on, or the quota of its control group or of one above it where that is less. A part of
    a processor counts as one.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([available, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Give the quotas of the control groups, in processors; none where there are none, or they cannot be read."""
    mounts = root / "sys" / "fs" / "cgroup"
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            # Beside groups of version 1 those of version 2 have a folder of their own.
            for mount in (mounts, mounts / "unified"):
                for folder in _upwards(mount, group):
                    quota, _, period = _text(folder / "cpu.max").partition(" ")
                    yield from _quota(quota, period)
        elif "cpu" in controllers.split(","):
            for mount in (mounts / controllers, mounts / "cpu"):
                for folder in _upwards(mount, group):
                    yield from _quota(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """Give the folders of a group and of those above it.

    In a container the name may be that of the host, whose folders are not there; its own group is at the top.
    """
    inside = PurePosixPath(group.lstrip("/"))
    if ".." in inside.parts:  # The group is outside of what the container sees.
        inside = PurePosixPath()
    for part in (inside, *inside.parents):
        yield mount / part


def _quota(quota: str, period: str) -> Iterator[float]:
    try:
        time, of = int(quota), int(period)
    except ValueError:  # "max", or nothing.
        return
    if time > 0 and of > 0:
        yield time / of


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
