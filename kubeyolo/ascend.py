"""Ascend: the versions that belong together, and what a machine lacks on which MindSpore cannot use Ascend.

The versions are those that the makers publish together; none of them was run on a card by this project. The build of
the images reads them from this file alone, so it imports nothing but the standard library.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CHIPS = ("910b", "a3")
"""Chips that MindSpore trains on, as the tags of CANN's images name them: 910B (A2), and A3 (910C)."""

IMAGE = "docker.io/ascendai/cann"
"""Repository of CANN's images."""


@dataclass(frozen=True)
class Release:
    """A version of MindSpore and what it is published with.

    Attributes:
        mindspore: Version of MindSpore.
        cann: Version of CANN, which the image contains.
        driver: Version of driver and firmware, which the node has.
        seen: Chips for which the tag of the base image was read in CANN's build files; tags of other chips follow the
            same naming scheme.
    """

    mindspore: str
    cann: str
    driver: str
    seen: tuple[str, ...] = ()

    def base_image(self, chip: str) -> str:
        """Return CANN's image with Python 3.11 for a chip; it exists for x86_64 and aarch64."""
        return f"{IMAGE}:{self.cann.lower()}-{chip}-ubuntu22.04-py3.11"


RELEASES = {
    release.mindspore: release
    for release in (
        Release("2.7.0", "8.2.RC1", "25.2.0", ("910b",)),
        Release("2.7.1", "8.3.RC1", "25.3.RC1"),
        Release("2.7.2", "8.5.0", "25.5.0", ("910b",)),
        Release("2.9.0", "9.0.0", "26.0.RC1"),
        Release("2.10.0", "9.1.0", "26.1.0"),
    )
}
"""Releases by the version of MindSpore; for 2.8.0 no version of CANN was found."""

DEVICES = Path("/dev")
DRIVER = Path("/usr/local/Ascend/driver/lib64")

_FAILED = re.compile(r"Load dynamic library: \S+ failed\. (?!libmindspore)(?P<reason>\S.*)")
_NOT_FOUND = re.compile(r"(?P<name>\S+): cannot open shared object file")
_BY_POD = "run the step in a job of an Ascend preset, with an image of `make images DEVICE=ascend`"
_ADVICE = "or set the device to CPU; docs/ascend.md lists what Ascend needs"


def missing_parts(environment: Mapping[str, str] = os.environ) -> str:
    """Return what this machine lacks for Ascend, with the remedy; empty if it has a card.

    A card is a device file, which a container has only if its pod was given the card.
    """
    if any(DEVICES.glob("*davinci[0-9]*")):
        return ""
    parts = [f"no card ({DEVICES}/davinci*)"]
    if not DRIVER.is_dir():
        parts.append(f"no driver ({DRIVER})")
    if not environment.get("ASCEND_HOME_PATH"):
        parts.append("no CANN (ASCEND_HOME_PATH is not set)")
    *most, last = parts
    listed = f"{', '.join(most)} and {last}" if most else last
    return f"there is {listed}; {_BY_POD}, {_ADVICE}"


def explain(error: str, mindspore: str = "", environment: Mapping[str, str] = os.environ) -> str:
    """Return in one line why MindSpore refuses Ascend, and what to do.

    Args:
        error: The text of MindSpore's error.
        mindspore: Version of MindSpore.
        environment: The environment variables of the process.
    """
    release = RELEASES.get(mindspore)
    version = f" (CANN {release.cann} for MindSpore {mindspore}, driver {release.driver})" if release else ""
    failed = _FAILED.search(error)
    if failed:
        missing = _NOT_FOUND.match(failed["reason"])
        if missing is None:
            reason = f"MindSpore cannot load its plugin for Ascend ({failed['reason'].strip()})"
            return f"{reason}; give it the CANN and the driver that it needs{version}, {_ADVICE}"
        name = missing["name"]
        reason = f"MindSpore cannot load {name}: CANN or the driver is missing, or not in LD_LIBRARY_PATH{version}"
        if not environment.get("ASCEND_HOME_PATH"):
            remedy = "use an image of `make images DEVICE=ascend`, or call CANN's set_env.sh first"
        elif not DRIVER.is_dir():
            remedy = f"let the pod have the driver in {DRIVER}, by Ascend's container runtime or the driver's mount"
        else:
            remedy = f"add the folder with {name} to LD_LIBRARY_PATH"
        return f"{reason}; {remedy}, {_ADVICE}"
    if "was built with" in error:
        return (
            "MindSpore is installed without its plugin for Ascend, as in images for CPU; build the image with "
            f"`make images DEVICE=ascend`, {_ADVICE}"
        )
    line = next((line.strip() for line in error.splitlines() if line.strip()), "MindSpore names no reason")
    return f"{line}; {_BY_POD}, {_ADVICE}"
