"""How much memory this process may use, and the lack of it: what the kernel has counted, and the words for it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from kubeyolo.control_groups import group_folders, text_of
from kubeyolo.exits import is_killed

_LIKELY_CAUSE = "most likely for lack of memory"
"""Why a process is killed by SIGKILL which nobody has sent knowingly."""

_NO_LIMIT = 1 << 60
"""Bytes: version 1 writes the largest number there is where no limit is set."""

# Of Python, the C++ library, numpy, OpenCV, MindSpore and its devices.
_WORDS = re.compile(
    r"\bMemoryError\b|bad_alloc|out of memory|cannot allocate memory|unable to allocate"
    r"|insufficient memory|memory (is|was) not enough|memory not enough|memory isn't enough"
    r"|(re|m)?alloc\w*[ \w]* mem(ory)?[ \w]* fail|fail\w* to (re|m)?alloc|memory alloc\w* fail",
    re.IGNORECASE,
)


def memory_kills(root: Path = Path("/")) -> int:
    """Return how many processes the kernel has killed for lack of memory, in the control group of this one.

    On the whole machine where the group has no such count, and 0 where there is none at all. Only the difference
    between two looks says something.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    files = (
        folder / ("memory.events" if version == 2 else "memory.oom_control")
        for version, folder in group_folders("memory", root)
    )
    counts = [count for count in map(_count, files) if count is not None]
    # A group counts what happens in those below it, so the largest number is that of the group at the top.
    return max(counts) if counts else _count(root / "proc" / "vmstat") or 0


def killed_for_memory(before: int, root: Path = Path("/")) -> str:
    """Return in words how many processes the kernel has killed for lack of memory; empty when there were none.

    Args:
        before: What ``memory_kills`` has counted before.
        root: Where ``proc`` and ``sys`` are.
    """
    count = memory_kills(root) - before
    if count <= 0:
        return ""
    return f"; meanwhile the kernel has killed {count} process{'' if count == 1 else 'es'} here for lack of memory"


def sigkill_cause(before: int, root: Path = Path("/")) -> str:
    """Return the likely cause of a SIGKILL that something else than this program has sent, with the memory limit.

    Args:
        before: What ``memory_kills`` has counted before.
        root: Where ``proc`` and ``sys`` are.
    """
    counted, limit = killed_for_memory(before, root), memory_limit(root)
    limited = "" if limit is None else f"; the limit of the container or control group is {limit / 1e6:.0f} MB"
    return (counted or f", {_LIKELY_CAUSE}") + limited


def death_cause(code: int, before: int) -> str:
    """Return in words what the kernel says, or SIGKILL suggests, of the end of a process; empty where that is nothing.

    Args:
        code: Exit code of the process.
        before: What ``memory_kills`` has counted before.
    """
    return sigkill_cause(before) if is_killed(code) else killed_for_memory(before)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return how many bytes of memory the control group of this process, or one above it, may use; None for all."""
    limits = []
    for version, folder in group_folders("memory", root):
        text = text_of(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")).strip()
        if text.isdigit() and int(text) < _NO_LIMIT:
            limits.append(int(text))
    return min(limits, default=None)


def usable_memory(root: Path = Path("/")) -> int | None:
    """Return how many bytes of memory this process may use; None where that is not known.

    That is the memory of the machine, or the limit of its control group or of one above it where that is less. Other
    processes of the group use of it too.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    limits = (_memory_of_machine(root), memory_limit(root))
    return min((limit for limit in limits if limit), default=None)


def is_lack_of_memory(text: str) -> bool:
    """Tell whether an error, or what a process has printed, says that memory could not be had."""
    return _WORDS.search(text) is not None


def _count(path: Path) -> int | None:
    """Return what a file of the kernel, with a name and a number on each line, has counted of ``oom_kill``."""
    for line in text_of(path).splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill" and count.strip().isdigit():
            return int(count)
    return None


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
