from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from kubeyolo.errors import InputError
from kubeyolo.weights.mindspore_checkpoint import read_mindspore_checkpoint


def saved(path: Path, crc_check: bool = False) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    arrays = {
        "conv.weight": generator.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "half": generator.standard_normal((5, 2)).astype(np.float16),
        "double": generator.standard_normal(7),
    }
    parameters = [{"name": name, "data": ms.Tensor(array)} for name, array in arrays.items()]
    parameters.append({"name": "step", "data": ms.Tensor(np.float32(3))})
    ms.save_checkpoint(parameters, str(path), crc_check=crc_check)
    return arrays


@pytest.mark.parametrize("crc_check", [False, True])
def test_what_mindspore_writes_is_read(tmp_path: Path, crc_check: bool) -> None:
    path = tmp_path / "a.ckpt"
    wanted = saved(path, crc_check)
    arrays = read_mindspore_checkpoint(path)
    assert arrays.keys() == {*wanted, "step"}
    assert arrays["step"].shape == ()
    assert arrays["step"].float32() == 3
    for name, array in wanted.items():
        assert (arrays[name].shape, arrays[name].dtype) == (array.shape, array.dtype.name)
        np.testing.assert_array_equal(arrays[name].float32(), array.astype(np.float32))


def test_tensors_in_slices_are_joined(tmp_path: Path) -> None:
    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2, len(data)]) + data

    values = np.arange(6, dtype=np.float32)
    slices = [values[:4].tobytes(), values[4:].tobytes()]
    data = b""
    for part in slices:
        tensor = b"\x08\x02\x08\x03" + field(2, b"Float32") + field(3, part)
        data += field(1, field(1, b"w") + field(2, tensor))
    path = tmp_path / "a.ckpt"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_mindspore_checkpoint(path)["w"].float32(), values.reshape(2, 3))


def test_a_wrong_checksum_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    saved(path, crc_check=True)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="its checksum does not match"):
        read_mindspore_checkpoint(path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    saved(path)
    data = path.read_bytes()
    whole = read_mindspore_checkpoint(path).keys()
    for length in range(1, len(data), 7):
        path.write_bytes(data[:length])
        try:
            # A file that is cut between two values is a shorter file; the model's names tell what is missing.
            assert read_mindspore_checkpoint(path).keys() < whole
        except InputError as error:
            assert "not a readable MindSpore checkpoint" in str(error)
    for text in (b"no checkpoint at all", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", bytes(64)):
        path.write_bytes(text)
        with pytest.raises(InputError, match="not a readable MindSpore checkpoint"):
            read_mindspore_checkpoint(path)
