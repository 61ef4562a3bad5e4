"""The names of what can run a network of a bundle."""

from __future__ import annotations

from typing import Literal, get_args

from kubeyolo.errors import InputError, suggest

RuntimeName = Literal["mindspore", "onnx", "int8", "mindir"]


def check_runtime(name: str) -> RuntimeName:
    """Return a runtime by its name.

    Raises:
        InputError: There is none of this name.
    """
    names: tuple[RuntimeName, ...] = get_args(RuntimeName)
    for runtime in names:
        if name == runtime:
            return runtime
    raise InputError(f"unknown runtime {name!r}{suggest(name, names)}")
