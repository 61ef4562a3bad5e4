"""Checks of exported networks before a runtime loads them, and of the shapes of their outputs.

ONNX and MINDIR are protocol buffers. Only lengths, names and numbers are read here; weights are skipped. A file is
refused if it reads other files, if a tensor does not have as many bytes as its shape needs, or if it has an operation
that no exported detector has and that may never end.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kubeyolo.arrays import Float32Array
from kubeyolo.bundle import BundleManifest
from kubeyolo.errors import InputError, one_line
from kubeyolo.regular_files import open_regular

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_FIELDS = 3_000_000
_MOST_DEPTH = 40
_MOST_AXES = 16
_SHOWN = 60
_REMEDY = "export the model again"

_ENDLESS = frozenset({"Loop", "Scan", "SequenceMap"})
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
# ONNX and MINDIR number most types alike; 0 stands for types whose elements have no fixed number of bytes.
_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 14: 8, 15: 16, 16: 2}

_Messages = Mapping[str, Mapping[int, str]]
_ONNX: _Messages = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_MINDIR: _Messages = {
    "model": {7: "graph", 8: "graph"},
    "graph": {1: "node", 3: "tensor", 8: "attribute"},
    "node": {5: "attribute", 8: "attribute", 9: "attribute"},
    "attribute": {6: "tensor", 7: "graph", 12: "tensor", 13: "graph", 17: "attribute"},
    "tensor": {},
}


@dataclass(frozen=True)
class _Format:
    """The numbers of the fields of a format: types of messages, and fields of nodes and tensors.

    ``fault`` is the start of the message about a file that is refused. ``domain`` is 0 if nodes have no domain; their
    operations are not checked then.
    """

    fault: str
    messages: _Messages
    domain: int
    tensor_name: int
    external: tuple[int, ...]


_FORMATS = {
    "onnx": _Format("onnxruntime cannot load it", _ONNX, domain=7, tensor_name=8, external=(13, 14)),
    "mindir": _Format("not a readable MINDIR file", _MINDIR, domain=0, tensor_name=7, external=(12,)),
}


class _Damaged(ValueError):
    """The bytes are not a valid message; the text gives the reason."""


def check_onnx_file(path: Path, program: str = "onnxruntime") -> None:
    """Refuse an ONNX file that reads other files, has tensors of wrong lengths, or operations that may never end.

    Args:
        path: The file.
        program: Name of the runtime, for the message.

    Raises:
        InputError: The message names the tensor or the operation.
    """
    _check(path, replace(_FORMATS["onnx"], fault=f"{program} cannot load it"))


def check_mindir_file(path: Path) -> None:
    """Refuse a MINDIR file that reads other files, or has tensors of wrong lengths.

    Raises:
        InputError: The message names the tensor.
    """
    _check(path, _FORMATS["mindir"])


def check_levels(path: Path, levels: Sequence[Float32Array], size: Sequence[int], manifest: BundleManifest) -> None:
    """Refuse raw outputs that do not fit the strides, anchors and classes of a bundle.

    Args:
        path: The file of the network.
        levels: Its outputs.
        size: Shape of its input (N, 3, H, W).
        manifest: The manifest of the bundle.

    Raises:
        InputError: The message has the shape that was found and the shape that is needed.
    """
    images, _, height, width = size
    attributes = 5 + len(manifest.classes)
    expected = [
        (images, len(anchors), height // stride, width // stride, attributes)
        for anchors, stride in zip(manifest.anchors, manifest.strides, strict=True)
    ]
    found = [tuple(level.shape) for level in levels]
    if found != expected or any(level.dtype != np.float32 for level in levels):
        raise InputError(
            f"{path}: its outputs have shapes {one_line(found, 200)}, but its bundle with {len(manifest.classes)} "
            f"classes needs float32 {expected}; {_REMEDY}"
        )


def check_predictions(path: Path, decoded: Float32Array, images: int, manifest: BundleManifest) -> None:
    """Refuse decoded predictions that do not fit the classes of a bundle.

    Args:
        path: The file of the network.
        decoded: Its output.
        images: Number of images in its input.
        manifest: The manifest of the bundle.

    Raises:
        InputError: The message has the shape that was found and the shape that is needed.
    """
    attributes = 5 + len(manifest.classes)
    is_right = decoded.ndim == 3 and decoded.shape[0] == images and decoded.shape[2] == attributes
    if not is_right or decoded.dtype != np.float32:
        raise InputError(
            f"{path}: its predictions have the shape {decoded.shape} ({decoded.dtype}), but its bundle with "
            f"{len(manifest.classes)} classes needs float32 ({images}, boxes, {attributes}); {_REMEDY}"
        )


def _check(path: Path, form: _Format) -> None:
    try:
        with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Reader(data, form).read("model", 0, len(data), 0)
    except (ValueError, OverflowError) as error:
        # Also an empty file, which cannot be mapped.
        raise InputError(f"{path}: {form.fault} ({error}); {_REMEDY}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; {_REMEDY}") from error


class _Reader:
    """Walks through the messages of a file; the content of tensors is skipped."""

    def __init__(self, data: mmap.mmap, form: _Format) -> None:
        self._data, self._form = data, form
        self._fields = 0

    def read(self, message: str, start: int, stop: int, depth: int) -> None:
        """Check the message in some bytes of the file, and the messages in it."""
        if depth > _MOST_DEPTH:
            raise _Damaged(f"graphs are nested more than {_MOST_DEPTH} deep")
        if message == "tensor":
            self._tensor(start, stop)
            return
        inner = self._form.messages[message]
        for number, wire, begin, end in self._fields_of(start, stop):
            if wire != _BYTES:
                continue
            if message == "node" and number == 4:
                self._operation(begin, end)
            elif message == "node" and number == self._form.domain:
                self._domain(begin, end)
            elif number in inner:
                self.read(inner[number], begin, end, depth + 1)

    def _operation(self, start: int, stop: int) -> None:
        name = self._text(start, stop)
        if self._form.domain and name in _ENDLESS:
            raise _Damaged(f"it has the operation {name}, which may never end")

    def _domain(self, start: int, stop: int) -> None:
        name = self._text(start, stop)
        if name not in _DOMAINS:
            raise _Damaged(f"it has an operation of the unknown domain '{name}'")

    def _tensor(self, start: int, stop: int) -> None:
        shape: list[int] = []
        kind, raw, name = 0, None, ""
        for number, wire, begin, end in self._fields_of(start, stop):
            if number == 1 and wire == _VARINT:
                shape.append(begin)
            elif number == 1 and wire == _BYTES:
                while begin < end and len(shape) <= _MOST_AXES:
                    side, begin = self._varint(begin)
                    shape.append(side)
            elif number == 2 and wire == _VARINT:
                kind = begin
            elif number == 9 and wire == _BYTES:
                raw = end - begin
            elif number == self._form.tensor_name and wire == _BYTES:
                name = self._text(begin, end)
            elif number in self._form.external and (wire == _BYTES or begin):
                raise _Damaged(f"tensor {name!r} is stored in another file")
            if len(shape) > _MOST_AXES:
                raise _Damaged(f"a tensor has more than {_MOST_AXES} axes")
        item = _ITEM_BYTES.get(kind)
        if raw is not None and item is not None and raw != math.prod(shape) * item:
            raise _Damaged(f"tensor {name!r} has {raw} bytes, which do not fit its shape {shape}")

    def _text(self, start: int, stop: int) -> str:
        return one_line(self._data[start : min(stop, start + _SHOWN)].decode("utf-8", "replace"))

    def _fields_of(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield number, wire type, and start and end of the content of each field; for a varint its value as start."""
        position = start
        while position < stop:
            self._fields += 1
            if self._fields > _MOST_FIELDS:
                raise _Damaged(f"more than {_MOST_FIELDS} fields")
            key, position = self._varint(position)
            number, wire = key >> 3, key & 7
            if wire == _VARINT:
                value, position = self._varint(position)
                yield number, wire, value, position
                continue
            if wire == _BYTES:
                length, position = self._varint(position)
            elif wire in (_FIXED32, _FIXED64):
                length = 4 if wire == _FIXED32 else 8
            else:
                raise _Damaged(f"unknown wire type {wire} at byte {position}")
            if position + length > stop:
                raise _Damaged(f"a field at byte {position} claims {length} bytes: the file is cut off")
            yield number, wire, position, position + length
            position += length

    def _varint(self, position: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if position >= len(self._data):
                raise _Damaged("the file is cut off")
            byte = self._data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, position
        raise _Damaged("an integer has more than 64 bits")
