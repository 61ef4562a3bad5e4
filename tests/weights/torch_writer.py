"""Writes files in PyTorch's zip format without PyTorch, good ones and bad ones."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
}


@dataclass(frozen=True)
class Name:
    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """A call of a function in the pickle; then items and state that are set on the result."""

    function: Name
    arguments: tuple[Any, ...]
    items: Mapping[str, Any] = field(default_factory=dict)
    state: Any = None


@dataclass(frozen=True)
class New:
    cls: Name
    state: Mapping[str, Any]


@dataclass(frozen=True)
class Persistent:
    value: tuple[Any, ...]


def ordered(items: Mapping[str, Any] | None = None) -> Call:
    return Call(Name("collections", "OrderedDict"), (), items or {})


def pickled(root: Any) -> bytes:
    """Return the pickle of a tree, protocol 2."""
    return b"\x80\x02" + _encode(root) + b"."


def _encode(node: Any) -> bytes:
    if node is None or isinstance(node, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[node]
    if isinstance(node, int):
        length = (node.bit_length() // 8) + 1
        return b"\x8a" + bytes([length]) + node.to_bytes(length, "little", signed=True)
    if isinstance(node, float):
        return b"G" + struct.pack(">d", node)
    if isinstance(node, str):
        data = node.encode()
        return b"X" + struct.pack("<I", len(data)) + data
    if isinstance(node, tuple):
        return b"(" + b"".join(map(_encode, node)) + b"t"
    if isinstance(node, list):
        return b"](" + b"".join(map(_encode, node)) + b"e"
    if isinstance(node, dict):
        return b"}" + _set_items(node)
    if isinstance(node, Name):
        return f"c{node.module}\n{node.name}\n".encode()
    if isinstance(node, Persistent):
        return _encode(node.value) + b"Q"
    if isinstance(node, New):
        return _encode(node.cls) + b")\x81" + _encode(dict(node.state)) + b"b"
    assert isinstance(node, Call), node
    made = _encode(node.function) + _encode(node.arguments) + b"R"
    made += _set_items(node.items) if node.items else b""
    return made + (_encode(node.state) + b"b" if node.state is not None else b"")


def _set_items(items: Mapping[Any, Any]) -> bytes:
    return b"(" + b"".join(_encode(key) + _encode(value) for key, value in items.items()) + b"u"


class TorchFile:
    """Collects storages, and writes them with a pickle."""

    def __init__(self) -> None:
        self.storages: dict[str, bytes] = {}

    def tensor(self, array: NDArray[Any], dtype: str = "", parameter: bool = False) -> Call:
        """Return the tree of a tensor with a storage of its own."""
        key = str(len(self.storages))
        self.storages[key] = array.tobytes()
        strides = tuple(stride // array.itemsize for stride in np.ascontiguousarray(array).strides)
        made = rebuilt(key, dtype or array.dtype.name, array.size, array.shape, strides if array.ndim else ())
        return Call(Name("torch._utils", "_rebuild_parameter"), (made, True, ordered())) if parameter else made

    def write(self, path: Path, root: Any, compression: int = zipfile.ZIP_STORED) -> Path:
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("archive/data.pkl", root if isinstance(root, bytes) else pickled(root))
            for key, data in self.storages.items():
                archive.writestr(f"archive/data/{key}", data)
            archive.writestr("archive/byteorder", "little")
            archive.writestr("archive/version", "3\n")
        return path


def rebuilt(
    key: str, dtype: str, length: int, shape: tuple[int, ...], strides: tuple[int, ...], first: int = 0
) -> Call:
    """Return the tree of a tensor on a storage."""
    storage = Persistent(("storage", Name("torch", STORAGES[dtype]), key, "cpu", length))
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), (storage, first, shape, strides, False, ordered()))


def module_tree(file: TorchFile, arrays: Mapping[str, NDArray[Any]], cls: Name, **attributes: Any) -> New:
    """Return the tree of a pickled module whose state dict would be ``arrays``."""
    own = {name: array for name, array in arrays.items() if "." not in name}
    children: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in arrays.items():
        head, dot, rest = name.partition(".")
        if dot:
            children.setdefault(head, {})[rest] = array
    buffers = {"running_mean", "running_var", "num_batches_tracked", "anchors"}
    layer = Name("torch.nn.modules.container", "Sequential")
    state = {
        "training": False,
        "_parameters": ordered({n: file.tensor(a, parameter=True) for n, a in own.items() if n not in buffers}),
        "_buffers": ordered({n: file.tensor(a) for n, a in own.items() if n in buffers}),
        "_non_persistent_buffers_set": Call(Name("__builtin__", "set"), ([],)),
        "_forward_hooks": ordered(),
        "_modules": ordered({name: module_tree(file, below, layer) for name, below in children.items()}),
        **attributes,
    }
    return New(cls, state)
