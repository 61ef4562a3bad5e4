"""The names of what can run a network of a bundle."""

from __future__ import annotations

from typing import Literal, get_args

from kubeyolo.errors import InputError, suggest

RuntimeName = Literal["mindspore", "onnx", "int8", "mindir"]
RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)
MEASURED: tuple[RuntimeName, ...] = ("mindspore", "onnx", "int8")
"""Those whose COCO numbers are kept in a bundle."""


def check_runtime(name: str) -> RuntimeName:
    """Return a runtime by its name.

    Raises:
        InputError: There is none of this name.
    """
    for runtime in RUNTIMES:
        if name == runtime:
            return runtime
    raise InputError(f"unknown runtime {name!r}{suggest(name, RUNTIMES)}")
