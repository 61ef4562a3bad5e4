"""The last build stage of the images: install system packages, and add the user that the image runs as."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ACCOUNT = "kubeyolo:x:10001:10001:kubeyolo:/tmp:/usr/sbin/nologin\n"

_OTHER_NAMES = {"iproute2": "iproute", "libgomp1": "libgomp"}
"""Debian's names of packages, and their names in distributions that use dnf."""


def prepare_system(packages: list[str], password_file: Path = Path("/etc/passwd")) -> None:
    """Install system packages, and add the user that the image runs as, if its id has no name yet."""
    lines = password_file.read_text(encoding="utf-8")
    if ACCOUNT.split(":")[2] not in [line.split(":")[2] for line in lines.splitlines()]:
        password_file.write_text(lines + ACCOUNT, encoding="utf-8")
    if not packages:
        return
    if shutil.which("apt-get"):
        _run("apt-get", "update")
        _run("apt-get", "install", "-y", "--no-install-recommends", *packages)
        _run("apt-get", "clean")
        shutil.rmtree("/var/lib/apt/lists")
    elif shutil.which("dnf"):
        _run("dnf", "install", "-y", "--setopt=install_weak_deps=False", *(_OTHER_NAMES[name] for name in packages))
        _run("dnf", "clean", "all")
    else:
        raise SystemExit(f"neither apt-get nor dnf in the base image: use one that has {', '.join(packages)}")


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    prepare_system(sys.argv[1:])
