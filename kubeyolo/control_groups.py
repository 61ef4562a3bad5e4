"""The control groups of this process, which limit what a container may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def group_folders(controller: str, root: Path = Path("/")) -> Iterator[tuple[int, Path]]:
    """Give the version and the folder of the groups of a controller, from the group of this process upwards.

    Folders that are not there are among them: in a container a group may have the name it has on the host.

    Args:
        controller: ``cpu`` or ``memory``.
        root: Where ``proc`` and ``sys`` are.
    """
    mounts = root / "sys" / "fs" / "cgroup"
    for line in text_of(root / "proc" / "self" / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            # Beside groups of version 1 those of version 2 have a folder of their own.
            for mount in (mounts, mounts / "unified"):
                yield from ((2, folder) for folder in _upwards(mount, group))
        elif controller in controllers.split(","):
            for mount in dict.fromkeys((mounts / controllers, mounts / controller)):
                yield from ((1, folder) for folder in _upwards(mount, group))


def text_of(path: Path) -> str:
    """Return the text of a file of the kernel; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """Give the folders of a group and of those above it.

    In a container the name may be that of the host, whose folders are not there; its own group is at the top.
    """
    inside = PurePosixPath(group.lstrip("/"))
    if ".." in inside.parts:  # The group is outside of what the container sees.
        inside = PurePosixPath()
    for part in (inside, *inside.parents):
        yield mount / part
