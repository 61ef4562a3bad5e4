"""The setup of MindSpore, before any other module imports it."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import tempfile
from pathlib import Path

from kubeyolo.ascend import explain, missing_parts
from kubeyolo.errors import InputError

CAPPED_FROM = (2, 9)
"""From this MindSpore version on, oneDNN runs a reference convolution on AVX-512 machines: a hundred times slower."""


RECURSION_LIMIT = 10_000
"""Deepest nesting of calls while MindSpore compiles: the gradients of the largest networks exceed its default, 1000."""


def mindspore_version() -> tuple[int, int]:
    """Return major and minor version of the installed MindSpore without importing it.

    Raises:
        InputError: MindSpore is not installed.
    """
    try:
        version = importlib.metadata.version("mindspore")
    except importlib.metadata.PackageNotFoundError:
        raise InputError("MindSpore is not installed: pip install 'kubeyolo[train]'") from None
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def mindspore_environment(device_target: str = "CPU", threads: int | None = None) -> dict[str, str]:
    """Return the environment variables that must be set before MindSpore is imported.

    Args:
        device_target: CPU or Ascend.
        threads: Threads of one process for its kernels; None for one thread per core.
    """
    # MindSpore prints its warnings about missing accelerators for every process; errors are raised anyway.
    values = {"GLOG_v": "3", "MS_OM_PATH": str(Path(tempfile.gettempdir()) / f"kubeyolo-mindspore-{os.getuid()}")}
    if device_target == "CPU" and mindspore_version() >= CAPPED_FROM:
        values["ONEDNN_MAX_CPU_ISA"] = "AVX2"
    if threads is not None:
        values["OMP_NUM_THREADS"] = str(threads)
    return values


def check_device(device_target: str) -> None:
    """Refuse a device that this machine does not have, without importing MindSpore; called at the start of a step.

    Raises:
        InputError: The device is Ascend, and this machine or this container has no card.
    """
    missing = missing_parts() if device_target == "Ascend" else ""
    if missing:
        raise _unusable(device_target, missing)


def configure_mindspore(device_target: str = "CPU", threads: int | None = None) -> None:
    """Import MindSpore in graph mode for a device. Environment variables that the user has set are kept.

    Raises:
        InputError: MindSpore is not installed, or cannot use this device.
    """
    check_device(device_target)
    imported = "mindspore" in sys.modules
    for name, value in mindspore_environment(device_target, threads).items():
        if name not in os.environ and not imported:
            os.environ[name] = value
    import mindspore

    try:
        # After its first kernel MindSpore refuses to set the device, even to the current device.
        if mindspore.get_context("device_target") != device_target:
            mindspore.set_device(device_target)
    except (RuntimeError, ValueError) as error:
        if device_target == "Ascend":
            raise _unusable(device_target, explain(str(error), importlib.metadata.version("mindspore"))) from error
        line = str(error).strip().splitlines()[0]
        remedy = "set it to CPU in the configuration, or install the MindSpore build for that device"
        raise _unusable(device_target, f"{line}; {remedy}") from error
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    mindspore.set_recursion_limit(RECURSION_LIMIT)


def _unusable(device_target: str, reason: str) -> InputError:
    return InputError(f"device_target {device_target!r} cannot be used on this machine: {reason}")
