"""Export to AIR, the format of the Ascend tool chain, which only an Ascend machine can write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kubeyolo.bundle import BundleManifest
from kubeyolo.errors import InputError
from kubeyolo.export.mindspore_export import export_cell


def check_air_possible(device_target: str) -> None:
    """Refuse AIR off Ascend; to be called before any work is done.

    Raises:
        InputError: ``device_target`` is not Ascend.
    """
    if device_target != "Ascend":
        raise InputError(
            f"export.formats: air can be written on an Ascend device only, and train.device_target is "
            f"{device_target}; drop air from export.formats, or run this step on an Ascend machine "
            "(from MINDIR the Ascend tool atc makes the same model)"
        )


def export_air(
    manifest: BundleManifest,
    build_network: Callable[[], Any],
    path: Path,
    batch_size: int = 1,
    device_target: str = "CPU",
) -> None:
    """Write a detector as AIR.

    Raises:
        InputError: Not on Ascend; raised before the network is built.
        WorkError: MindSpore cannot export the network.
    """
    check_air_possible(device_target)
    export_cell(build_network(), (batch_size, 3, *manifest.image_size), path, "AIR")
