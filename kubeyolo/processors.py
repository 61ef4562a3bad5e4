"""How many processors this process may use: in a container fewer than the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from kubeyolo.control_groups import group_folders, text_of


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
    for version, folder in group_folders("cpu", root):
        if version == 2:
            quota, _, period = text_of(folder / "cpu.max").partition(" ")
        else:
            quota, period = text_of(folder / "cpu.cfs_quota_us"), text_of(folder / "cpu.cfs_period_us")
        yield from _quota(quota, period)


def _quota(quota: str, period: str) -> Iterator[float]:
    try:
        time, of = int(quota), int(period)
    except ValueError:  # "max", or nothing.
        return
    if time > 0 and of > 0:
        yield time / of
