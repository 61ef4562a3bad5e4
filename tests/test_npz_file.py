"""Files of arrays that claim more than they have, or are not arrays of numbers."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kubeyolo.errors import InputError
from kubeyolo.npz_file import read_npz
from kubeyolo.zip_members import TooManyMembers, member_names
from tests.costs import measured


def npy(header: str, content: bytes = b"", version: int = 1) -> bytes:
    text = header.encode()
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + content


def numbers(shape: str, content: bytes = bytes(16), descr: str = "<i8", order: str = "False") -> bytes:
    return npy(f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({shape}), }}\n", content)


def npz(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return data.getvalue()


def of_objects() -> bytes:
    data = io.BytesIO()
    np.savez(data, a=np.array([os.system], dtype=object), allow_pickle=True)
    return data.getvalue()


def twice() -> bytes:
    data = npz({"a.npy": numbers("2,"), "b.npy": numbers("2,")})
    return data.replace(b"b.npy", b"a.npy")


ZIP = npz({"a.npy": numbers("2,")})
REFUSED = {
    "empty": b"",
    "noise": b"PK\x03\x04" + os.urandom(2000),
    "npy": numbers("2,"),
    "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "objects": of_objects(),
    "8 TiB": npz({"a.npy": numbers("1099511627776,", bytes(100))}, zipfile.ZIP_DEFLATED),
    "2^62": npz({"a.npy": numbers("4611686018427387904,")}),
    "overflow": npz({"a.npy": numbers("4611686018427387904, 4")}),
    "short": npz({"a.npy": numbers("3,")}),
    "long": npz({"a.npy": numbers("1,")}),
    "negative": npz({"a.npy": numbers("-2,")}),
    "many axes": npz({"a.npy": numbers("1, " * 60)}),
    "code": npz({"a.npy": npy("__import__('os').system('true')\n")}),
    "parentheses": npz({"a.npy": npy("(" * 50_000, version=2)}),
    "header of 4 GiB": npz({"a.npy": b"\x93NUMPY\x02\x00" + b"\xff" * 4 + bytes(100)}),
    "record": npz({"a.npy": npy("{'descr': [('a', '<i8')], 'fortran_order': False, 'shape': (2,), }\n", bytes(16))}),
    "text": npz({"a.npy": numbers("2,", bytes(16), "<U2")}),
    "bomb": npz({"a.npy": numbers(f"{1 << 20},", bytes(8 << 20))}, zipfile.ZIP_DEFLATED),
    "bzip2": npz({"a.npy": numbers("2,")}, zipfile.ZIP_BZIP2),
    "twice": twice(),
    "outside": npz({"../a.npy": numbers("2,")}),
    "unknown name": npz({"evil.npy": numbers("2,")}),
    "cut off": ZIP[:-30],
    "checksum": ZIP.replace(bytes(16), bytes(15) + b"\1", 1),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_hostile_files_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(data)
    with measured() as costs, pytest.raises((InputError, ValueError)) as raised:
        read_npz(path, ["a"])
    assert 0 < len(str(raised.value)) < 400
    assert costs.megabytes < 20


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_as_numpy_reads_them(tmp_path: Path, save: Any) -> None:
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "floats": random.standard_normal((5, 4)),
        "columns": np.asfortranarray(random.standard_normal((3, 4))),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 4)),
        "bytes": np.frombuffer(b"a\0b", np.uint8),
        "number": np.int32(7),
    }
    path = tmp_path / "a.npz"
    save(path, **arrays)
    found = read_npz(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == np.asarray(array).dtype
        np.testing.assert_array_equal(found[name], array)


def test_a_directory_of_very_many_members_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    entry = b"PK\x01\x02" + bytes(42)
    count = 200_000
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, count * len(entry), 0, 0)
    path.write_bytes(entry * count + end)
    with measured() as costs, pytest.raises(TooManyMembers, match="its directory has 9200000 bytes, at most 8388608"):
        member_names(path)
    assert costs.megabytes < 5
