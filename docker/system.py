"""The last build stage of the images: install system packages, and add the user that the image runs as.

For Ascend it first checks that the base image has CANN, with its variables.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

ACCOUNT = "kubeyolo:x:10001:10001:kubeyolo:/tmp:/usr/sbin/nologin\n"

_OTHER_NAMES = {"iproute2": "iproute", "libgomp1": "libgomp"}
"""Debian's names of packages, and their names in distributions that use dnf."""


def check_cann(environment: Mapping[str, str]) -> None:
    """Refuse a base image whose ENV does not set what CANN needs: the command of a pod skips an ENTRYPOINT.

    Raises:
        SystemExit: A variable is missing, or what it should name is.
    """
    problems = []
    for name in ("ASCEND_HOME_PATH", "ASCEND_OPP_PATH"):
        if not environment.get(name):
            problems.append(f"{name} is not set")
        elif not Path(environment[name]).is_dir():
            problems.append(f"{name} = {environment[name]} is not a folder")
    if not _has(environment, "LD_LIBRARY_PATH", "libge_runner.so"):
        problems.append("no folder of LD_LIBRARY_PATH has libge_runner.so")
    if importlib.util.find_spec("te") is None:
        problems.append("Python does not find the package te (PYTHONPATH)")
    if problems:
        raise SystemExit(
            f"the base image has no CANN that a pod can use: {'; '.join(problems)}. Use an image of CANN, which sets "
            "these variables by ENV, or set them in an image made from yours"
        )


def _has(environment: Mapping[str, str], variable: str, name: str) -> bool:
    folders = environment.get(variable, "").split(":")
    return any((Path(folder) / name).is_file() for folder in folders if folder)


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


def main() -> None:
    """Prepare the system of an image."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="*", help="names of Debian packages")
    parser.add_argument("--device", choices=("cpu", "ascend"), default="cpu")
    given = parser.parse_args()
    if given.device == "ascend":
        check_cann(os.environ)
    prepare_system(given.packages)


if __name__ == "__main__":
    main()
