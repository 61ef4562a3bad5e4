"""Weights that are made to harm: refused with one line, in little time and memory, whatever they claim."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kubeyolo.errors import InputError
from kubeyolo.models.named_facts import model_facts
from kubeyolo.weights import mindspore_checkpoint, pickle_tree
from kubeyolo.weights.names import layouts_of, to_layout
from kubeyolo.weights.network_parameters import network_parameters
from kubeyolo.weights.torch_checkpoint import read_torch_checkpoint
from kubeyolo.weights.weights_file import read_weights
from tests.costs import measured
from tests.weights.torch_writer import Call, Name, Persistent, TorchFile, ordered, pickled, rebuilt

FOUR = {"0": bytes(16)}


def archive(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return data.getvalue()


def checkpoint(root: Any, storages: dict[str, bytes] | None = None, method: int = zipfile.ZIP_STORED) -> bytes:
    pickle = root if isinstance(root, bytes) else pickled(root)
    stored = {f"archive/data/{key}": content for key, content in (storages or {}).items()}
    return archive({"archive/data.pkl": pickle, **stored}, method)


def claimed(data: bytes, name: str, offset: int, form: str, value: int) -> bytes:
    """Return an archive with another value at an offset of a directory entry."""
    changed = bytearray(data)
    at = data.rindex(name.encode()) - 46
    assert changed[at : at + 4] == b"PK\x01\x02"
    struct.pack_into(form, changed, at + offset, value)
    return bytes(changed)


def tensor(**values: Any) -> bytes:
    facts: dict[str, Any] = {"key": "0", "dtype": "float32", "length": 4, "shape": (4,), "strides": (1,), "first": 0}
    return checkpoint({"w": rebuilt(**(facts | values))}, FOUR)


def tuples_in_tuples(depth: int = 14) -> bytes:
    """Return the opcodes of a tuple whose text has eight to the power of ``depth`` words."""
    return b"X\x04\x00\x00\x00text" + b"".join(
        b"q" + bytes([i]) + b"(" + (b"h" + bytes([i])) * 8 + b"t" for i in range(depth)
    )


def tensor_with(part: str) -> bytes:
    """Return a checkpoint with a tensor, one part of which is a tuple that has no text."""
    parts = {
        "kind": b"X\x07\x00\x00\x00storage",
        "type": b"ctorch\nFloatStorage\n",
        "key": b"X\x01\x00\x00\x000",
        "device": b"X\x03\x00\x00\x00cpu",
        "length": b"K\x04",
    }
    rest = {"first": b"K\x00", "shape": b"K\x04\x85", "strides": b"K\x01\x85"}
    for group in (parts, rest):
        if part in group:
            group[part] = tuples_in_tuples()
    call = b"ctorch._utils\n_rebuild_tensor_v2\n((" + b"".join(parts.values()) + b"tQ" + b"".join(rest.values())
    return checkpoint(b"\x80\x02}X\x01\x00\x00\x00w" + call + b"\x89}tRs.", FOUR)


def nested(module: bytes) -> bytes:
    """Return a checkpoint with a module; memo 1 is the module itself."""
    return checkpoint(b"\x80\x02cm\nM\n)\x81q\x01}(X\x08\x00\x00\x00_modules}(" + module + b"uub.")


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def safetensors(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(head) if length is None else length) + head + body


def varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def value(tag: bytes, shape: list[int], content: bytes = bytes(4), dtype: bytes = b"Float32") -> bytes:
    dims = b"".join(b"\x08" + varint(side) for side in shape)
    return field(1, field(1, tag) + field(2, dims + field(2, dtype) + field(3, content)))


GOOD = checkpoint({"w": rebuilt("0", "float32", 4, (4,), (1,))}, FOUR)
ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
BOMB = archive({"archive/data.pkl": b"x", "archive/data/0": bytes(8 << 20)}, zipfile.ZIP_DEFLATED)
REFUSED: dict[str, tuple[str, bytes, str]] = {
    "method": ("pt", claimed(GOOD, "archive/data/0", 10, "<H", 99), "compressed by method 99"),
    "bzip2": ("pt", checkpoint({}, FOUR, zipfile.ZIP_BZIP2), "compressed by method 12"),
    "lzma": ("pt", checkpoint({}, FOUR, zipfile.ZIP_LZMA), "compressed by method 14"),
    "encrypted": ("pt", claimed(GOOD, "archive/data/0", 8, "<H", 1), "is encrypted"),
    "long claim": ("pt", claimed(GOOD, "archive/data/0", 24, "<I", 1 << 31), "claims 2147483648 bytes"),
    "overlap": ("pt", claimed(GOOD, "archive/data/0", 42, "<I", 0), "overlaps"),
    "bomb": ("pt", BOMB, "would grow from .* to 8388608 bytes"),
    "bomb that lies": ("pt", claimed(BOMB, "archive/data/0", 24, "<I", 99), "does not have the 99 bytes"),
    "many small bombs": (
        "pt",
        archive({"data.pkl": b"x", **{f"data/{i}": bytes(1 << 18) for i in range(40)}}, zipfile.ZIP_DEFLATED),
        "would grow to",
    ),
    "directory": ("pt", GOOD[:-10] + struct.pack("<I", 1 << 30) + GOOD[-6:], "end is missing|damaged"),
    "deep list": ("pt", checkpoint(b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b"."), "contains no weights"),
    "deep tuple": ("pt", checkpoint(b"\x80\x02)" + b"\x85" * 50_000 + b"."), "contains no weights"),
    "long pickle": ("pt", checkpoint(b"\x80\x02" + b"N0" * 9_000_000 + b"N."), "at most 16777216 are allowed"),
    "long name": ("pt", checkpoint(b"\x80\x02c" + b"a" * 1_000_000 + b"\nb\n."), "a name has 1000001 characters"),
    "controls": ("pt", checkpoint(b"\x80\x02cos\n\x1b[2Jsystem\n)R."), r"names os\.\\x1b\[2Jsystem"),
    "long keys": ("pt", checkpoint({"k" * 1_000_000: 1}), "contains no weights .keys: k{40}…"),
    "module of itself": ("pt", nested(text("a") + b"h\x01" + text("b") + b"h\x01"), "contain themselves"),
    "wide modules": ("pt", nested(b"".join(text(str(i)) + b"h\x01" for i in range(21_000))), "contain themselves"),
    "storage of no torch": (
        "pt",
        checkpoint(
            {
                "w": Call(
                    Name("torch._utils", "_rebuild_tensor_v2"),
                    (Persistent(("storage", Name("evil", "FloatStorage"), "0", "cpu", 4)), 0, (4,), (1,), False),
                )
            },
            FOUR,
        ),
        r"type evil\.FloatStorage",
    ),
    "negative shape": ("pt", tensor(shape=(-4,)), "no valid shape"),
    "negative stride": ("pt", tensor(strides=(-1,)), "no valid shape"),
    "negative first": ("pt", tensor(first=-1), "is damaged"),
    "huge shape": ("pt", tensor(shape=(1 << 62,), strides=(0,)), "claims 18446744073709551616 bytes"),
    "1 GiB of 16 bytes": ("pt", tensor(shape=(1 << 28,), strides=(0,)), "claims 1073741824 bytes"),
    "axes": ("pt", tensor(shape=(1,) * 1000, strides=(1,) * 1000), "no valid shape"),
    "beyond": ("pt", tensor(first=3), "beyond its storage"),
    "header of 2^64": ("safetensors", safetensors({"a": ENTRY}, length=(1 << 64) - 1), "known|claims"),
    "header of 1 TiB": ("safetensors", safetensors({"a": ENTRY}, length=1 << 40), "claims 1099511627776 bytes"),
    "header of lists": ("safetensors", safetensors(b'{"a":[' + b"[]," * 2_000_000 + b"0]}"), "at most 4194304 are"),
    "deep header": ("safetensors", safetensors(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "not a readable"),
    "twice": ("safetensors", safetensors(b'{"a":1,"a":1}'), "'a' occurs twice"),
    "negative": ("safetensors", safetensors({"a": ENTRY | {"shape": [-1]}}, bytes(4)), "negative"),
    "2^70": ("safetensors", safetensors({"a": ENTRY | {"shape": [1 << 70]}}, bytes(4)), "too large"),
    "float": ("safetensors", safetensors({"a": ENTRY | {"shape": [1.0]}}, bytes(4)), "not an integer"),
    "NaN": ("safetensors", safetensors({"a": ENTRY | {"shape": [float("nan")]}}, bytes(4)), "not an integer"),
    "100,000 axes": ("safetensors", safetensors({"a": ENTRY | {"shape": [1] * 100_000}}, bytes(4)), "at most 16"),
    "type": ("safetensors", safetensors({"a": ENTRY | {"dtype": "\x1b" * 9000}}, bytes(4)), "is not known"),
    "list as type": ("safetensors", safetensors({"a": ENTRY | {"dtype": []}}, bytes(4)), "a type is not text"),
    "metadata": ("safetensors", safetensors({"__metadata__": {"a": [[1]]}, "a": ENTRY}, bytes(4)), "not texts"),
    "entry": ("safetensors", safetensors({"a": 7}), "needs a type"),
    "name": ("safetensors", safetensors({"n" * 100_000: ENTRY}, bytes(4)), "a name has 100000 characters"),
    "long value": ("ckpt", b"\x0a" + varint(1 << 40) + value(b"a", [1])[2:], "claims"),
    "dimensions": ("ckpt", value(b"a.b", [1] * 100_000), "more than 16 dimensions"),
    "negative dimension": ("ckpt", value(b"a.b", [(1 << 64) - 4]), "do not fit shape"),
    "seek": (
        "ckpt",
        value(b"a.b", [1]) + field(1, field(1, b"a") + b"\x28" + varint((1 << 63) - 1) + bytes(3)),
        "not a readable MindSpore checkpoint",
    ),
    "tag": ("ckpt", value(b"a.b", [1]) + value(b"a" * 5000, [1]), "at most 256 are allowed"),
}
REFUSED |= {
    f"{part} without text": ("pt", tensor_with(part), "is damaged|no valid shape")
    for part in ("kind", "type", "key", "device", "length", "first", "shape", "strides")
    if part != "device"
}


@pytest.mark.parametrize(("suffix", "data", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_hostile_files_are_refused_with_one_line(tmp_path: Path, suffix: str, data: bytes, words: str) -> None:
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(data)
    with measured() as costs, pytest.raises(InputError, match=words) as raised:
        read_weights(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert len(message) < 1000 + len(str(path)) and message.isprintable()
    assert costs.seconds < 8
    assert costs.megabytes < 250


def test_the_numbers_of_operations_and_of_tensors_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_tree, "MAX_OPCODES", 1000)
    monkeypatch.setattr(mindspore_checkpoint, "_MAX_TENSORS", 100)
    (tmp_path / "w.pt").write_bytes(checkpoint(b"\x80\x02" + b"N0" * 600 + b"N."))
    (tmp_path / "w.ckpt").write_bytes(b"".join(value(b"a%06d" % i, [1]) for i in range(101)))
    for name, words in (("w.pt", "more than 1000 operations"), ("w.ckpt", "more than 100 tensors")):
        with pytest.raises(InputError, match=words):
            read_weights(tmp_path / name)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_pipes_and_devices_are_not_waited_for(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "w.pt")
    with pytest.raises(InputError, match="is not a regular file"):
        read_weights(tmp_path / "w.pt")


def test_deflated_checkpoints_are_read_piece_by_piece(tmp_path: Path) -> None:
    file = TorchFile()
    random = np.random.default_rng(0)
    arrays = {f"w{i}": random.integers(0, 4, 250_000).astype(np.float32) for i in range(12)}
    tree = ordered({name: file.tensor(array) for name, array in arrays.items()})
    path = file.write(tmp_path / "a.pt", tree, zipfile.ZIP_DEFLATED)
    with measured() as costs:
        found = read_torch_checkpoint(path).arrays
        for name, array in found.items():
            np.testing.assert_array_equal(array.float32(), arrays[name])
    assert costs.megabytes < 6  # of 12


def test_many_tensors_at_the_end_of_a_deflated_storage_are_refused(tmp_path: Path) -> None:
    file, length = TorchFile(), 1_000_000
    file.tensor(np.random.default_rng(0).integers(0, 4, length).astype(np.float32))
    parts = {f"w{i}": rebuilt("0", "float32", length, (1,), (1,), length - 1) for i in range(100)}
    path = file.write(tmp_path / "a.pt", ordered(parts), zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="many tensors share the compressed storage '0'.*save the checkpoint again"):
        read_torch_checkpoint(path)
    stored = file.write(tmp_path / "b.pt", ordered(parts))
    assert len(read_torch_checkpoint(stored).arrays) == 100


@pytest.mark.parametrize("classes", [20_000, 5_000_000])
def test_a_few_bytes_do_not_become_a_head_of_many_classes(tmp_path: Path, classes: int) -> None:
    facts = model_facts("yolov5n-r7")
    (layout,) = layouts_of(facts)
    shapes = network_parameters("yolov5n-r7").with_classes(classes).shapes
    tree = {
        to_layout(name, facts, layout): rebuilt("0", "float32", 4, tuple(shape), (0,) * len(shape))
        for name, shape in shapes.items()
    }
    path = tmp_path / "w.pt"
    path.write_bytes(checkpoint(tree, FOUR))
    with measured() as costs, pytest.raises(InputError, match=r"claims \d+ bytes, its storage '0' has 16"):
        read_weights(path)
    assert costs.megabytes < 50
