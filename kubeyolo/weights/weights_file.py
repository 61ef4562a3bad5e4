"""Opens a file of weights in any known format; the content shows the format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from kubeyolo.errors import InputError
from kubeyolo.weights.darknet import is_darknet
from kubeyolo.weights.mindspore_checkpoint import is_mindspore_checkpoint, read_mindspore_checkpoint
from kubeyolo.weights.other_files import is_torch_archive, read_head, refuse_other
from kubeyolo.weights.safetensors_file import is_safetensors, read_safetensors
from kubeyolo.weights.stored_array import StoredArray
from kubeyolo.weights.torch_checkpoint import read_torch_checkpoint

Format = Literal["torch", "safetensors", "mindspore", "darknet"]

_SUFFIXES: Mapping[str, Format] = {
    ".pt": "torch",
    ".pth": "torch",
    ".safetensors": "safetensors",
    ".ckpt": "mindspore",
    ".weights": "darknet",
}
_ZIP = b"PK\x03\x04"


@dataclass(frozen=True)
class WeightsFile:
    """The content of a file of weights.

    Attributes:
        path: The file.
        format: Its format.
        arrays: Arrays by the names in the file; empty for darknet, whose files have no names.
        classes: Names of the classes, if the file has them.
        anchors: (level, anchor, 2) in pixels, if the file has them in pixels.
        bn_eps: Constant that batch normalization adds to the variance, if the file has it.
        model: Name of the model, if the file has it.
        part: The part of a training checkpoint that was used.
    """

    path: Path
    format: Format
    arrays: Mapping[str, StoredArray]
    classes: tuple[str, ...] | None = None
    anchors: tuple[tuple[tuple[float, float], ...], ...] | None = None
    bn_eps: float | None = None
    model: str | None = None
    part: str = ""


def read_weights(path: Path) -> WeightsFile:
    """Open a file of weights in any of the known formats; arrays are read when they are needed.

    Raises:
        InputError: There is no such file, its format is not known, or it is damaged or refused.
    """
    kind = format_of(path)
    if kind == "torch":
        checkpoint = read_torch_checkpoint(path)
        return WeightsFile(path, kind, checkpoint.arrays, checkpoint.classes, part=checkpoint.part)
    if kind == "safetensors":
        arrays, metadata = read_safetensors(path)
        return WeightsFile(
            path, kind, arrays, _classes(metadata), _anchors(metadata), _bn_eps(metadata), metadata.get("model")
        )
    if kind == "mindspore":
        return WeightsFile(path, kind, read_mindspore_checkpoint(path))
    return WeightsFile(path, kind, {})


def format_of(path: Path) -> Format:
    """Return the format of a file by its content, or by its suffix if the content does not show it.

    Raises:
        InputError: There is no such file, it does not contain weights, or its format is not known.
    """
    head = read_head(path)
    size = path.stat().st_size
    if head.startswith(_ZIP) and is_torch_archive(path):
        return "torch"
    if is_safetensors(head, size):
        return "safetensors"
    if is_mindspore_checkpoint(head):
        return "mindspore"
    if is_darknet(head, size):
        return "darknet"
    refuse_other(path, head)
    named = _SUFFIXES.get(path.suffix.lower())
    if named == "torch":
        raise InputError(
            f"{path}: is not in PyTorch's zip format or any other known format ({size} bytes, the first are "
            f"{head[:8].hex(' ')}); get the file again"
        )
    if named is None:
        raise InputError(f"{path}: the format of this file is not known; known: {', '.join(_SUFFIXES)}")
    return named


def _classes(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    names = _json(metadata.get("classes"))
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None


def _anchors(metadata: Mapping[str, str]) -> tuple[tuple[tuple[float, float], ...], ...] | None:
    levels = _json(metadata.get("anchors"))
    try:
        return tuple(tuple((float(width), float(height)) for width, height in level) for level in levels)
    except (TypeError, ValueError):
        return None


def _bn_eps(metadata: Mapping[str, str]) -> float | None:
    eps = _json(metadata.get("bn_eps"))
    return eps if isinstance(eps, float) and 0 < eps < 1 else None


def _json(text: str | None) -> Any:
    try:
        return orjson.loads(text) if text is not None else None
    except orjson.JSONDecodeError:
        return None
