"""The memory that processes use, and lack of memory: processes that the kernel has killed, and errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from kubeyolo.formats import size_text
from kubeyolo.processes import children, is_killed
from kubeyolo.resources import group_folders, memory_limit, text_of

# In errors of Python, the C++ library, numpy, OpenCV, MindSpore and its devices.
_WORDS = re.compile(
    r"\bMemoryError\b|bad_alloc|out of memory|cannot allocate memory|unable to allocate"
    r"|insufficient memory|memory (is|was) not enough|memory not enough|memory isn't enough"
    r"|(re|m)?alloc\w*[ \w]* mem(ory)?[ \w]* fail|fail\w* to (re|m)?alloc|memory alloc\w* fail",
    re.IGNORECASE,
)


def memory_kills(root: Path = Path("/")) -> int:
    """Return how many processes the kernel has killed for lack of memory, in the control group of this process.

    If the group has no such count, the count of the whole machine is returned, or 0 if there is none. Only the
    difference between two counts has a meaning.

    Args:
        root: The folder with ``proc`` and ``sys``.
    """
    files = (
        folder / ("memory.events" if version == 2 else "memory.oom_control")
        for version, folder in group_folders("memory", root)
    )
    counts = [count for count in map(_count, files) if count is not None]
    # The count of a group includes the groups below it, so the largest count is the count of the top group.
    return max(counts) if counts else _count(root / "proc" / "vmstat") or 0


def killed_for_memory(before: int, root: Path = Path("/")) -> str:
    """Return a phrase with the number of processes that the kernel has killed for lack of memory; empty if none.

    Args:
        before: An earlier count of ``memory_kills``.
        root: The folder with ``proc`` and ``sys``.
    """
    count = memory_kills(root) - before
    if count <= 0:
        return ""
    return f"; meanwhile the kernel has killed {count} process{'' if count == 1 else 'es'} here for lack of memory"


def death_cause(code: int, before: int, root: Path = Path("/")) -> str:
    """Return a phrase with the likely reason for a SIGKILL, and with the memory limit; empty if unknown.

    Args:
        code: Exit code of the process.
        before: The count of ``memory_kills`` before the process was started.
        root: The folder with ``proc`` and ``sys``.
    """
    counted = killed_for_memory(before, root)
    if not is_killed(code):
        return counted
    limit = memory_limit(root)
    limited = "" if limit is None else f"; the limit of the container or control group is {size_text(limit)}"
    return (counted or ", most likely for lack of memory") + limited


def memory_of(pid: int, root: Path = Path("/")) -> int:
    """Return how many bytes of memory a process and its descendants use; 0 if unknown.

    Memory that several processes share is counted once, if the kernel reports the shares of each process.

    Args:
        pid: The process.
        root: The folder with ``proc``.
    """
    total, waiting = 0, [pid]
    while waiting:
        process = waiting.pop()
        waiting += children(process, root)
        folder = root / "proc" / str(process)
        # The second file has the resident memory, in which shared memory is counted for each process.
        sizes = (_kilobytes(folder / "smaps_rollup", "Pss"), _kilobytes(folder / "status", "VmRSS"))
        total += next((size for size in sizes if size is not None), 0)
    return total


def lower(settings: Mapping[str, int | None]) -> str:
    """Return which settings to lower to use less memory, with their values if known."""
    *first, last = (key if value is None else f"{key} ({value})" for key, value in settings.items())
    return f"lower {', '.join(first)}{' or ' if first else ''}{last}"


def is_lack_of_memory(text: str) -> bool:
    """Tell whether an error or the output of a process reports that memory could not be allocated."""
    return _WORDS.search(text) is not None


def _kilobytes(path: Path, name: str) -> int | None:
    """Return in bytes a value in kB of a file of the kernel that has lines ``name: number kB``."""
    for line in text_of(path).splitlines():
        key, _, value = line.partition(":")
        number = value.removesuffix("kB").strip()
        if key == name and number.isdigit():
            return 1024 * int(number)
    return None


def _count(path: Path) -> int | None:
    """Return the count of ``oom_kill`` in a file of the kernel that has a name and a number on each line."""
    for line in text_of(path).splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill" and count.strip().isdigit():
            return int(count)
    return None
