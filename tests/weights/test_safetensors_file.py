from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kubeyolo.errors import InputError
from kubeyolo.weights.safetensors_file import read_safetensors, write_safetensors


def test_the_safetensors_package_reads_what_is_written(tmp_path: Path) -> None:
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3).T, "a": np.float32([7]), "empty": np.zeros((0, 2))}
    path = tmp_path / "a.safetensors"
    write_safetensors(path, arrays.items(), {"model": "x"})
    read = load_file(path)
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name], array)
    assert read_safetensors(path)[1] == {"model": "x"}


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "uint8"])
def test_what_the_safetensors_package_writes_is_read(tmp_path: Path, dtype: str) -> None:
    array = np.arange(12).reshape(3, 4).astype(dtype)
    save_file({"x": array}, tmp_path / "a.safetensors")
    arrays, metadata = read_safetensors(tmp_path / "a.safetensors")
    assert (arrays["x"].dtype, arrays["x"].shape, metadata) == (dtype, (3, 4), {})
    if dtype.startswith("float"):
        np.testing.assert_array_equal(arrays["x"].float32(), array.astype(np.float32))
    else:
        with pytest.raises(InputError, match=f"an array of {dtype} does not hold weights"):
            arrays["x"].float32()


def document(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        document({}, length=1 << 60),
        document([]),
        document({"x": entry([1 << 40], 0, 1 << 42)}, bytes(16)),
        document({"x": entry([4], 0, 8)}, bytes(16)),
        document({"x": entry([-4], 0, 16)}, bytes(16)),
        document({"x": entry([4], 0, 16, "Q4")}, bytes(16)),
        document({"x": entry([4], 0, 16)}, bytes(20)),
        document({"x": entry([4], 0, 16), "y": entry([4], 0, 16)}, bytes(16)),
        document({"x": entry([4], 0, 16)}, bytes(12)),
        document({"x": 3}),
        document({"x": {}}),
        document("[" * 10),
        (200_000).to_bytes(8, "little") + b"{" + b'"a":[' * 30_000 + bytes(50_000),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        read_safetensors(path)
