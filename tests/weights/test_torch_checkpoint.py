from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kubeyolo.errors import InputError
from kubeyolo.weights import torch_archive
from kubeyolo.weights.torch_checkpoint import read_torch_checkpoint
from tests.weights.torch_writer import Call, Name, New, TorchFile, module_tree, ordered, pickled, rebuilt

MODEL = Name("models.yolo", "DetectionModel")


def values(path: Path) -> dict[str, np.ndarray]:
    return {name: array.float32() for name, array in read_torch_checkpoint(path).arrays.items()}


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    return {
        "model.0.conv.weight": generator.standard_normal((4, 3, 2, 2)).astype(np.float32),
        "model.0.bn.running_mean": generator.standard_normal(4).astype(np.float32),
        "model.1.m.0.bias": generator.standard_normal(5).astype(np.float32),
    }


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array)


def test_a_state_dict_is_read(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    file = TorchFile()
    same(values(file.write(tmp_path / "a.pt", ordered({n: file.tensor(a) for n, a in arrays.items()}))), arrays)


def test_a_pickled_module_is_read_with_its_class_names(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    file = TorchFile()
    tree = {"epoch": 3, "model": module_tree(file, arrays, MODEL, names=["cell", "platelet"]), "ema": None}
    path = file.write(tmp_path / "a.pt", tree)
    same(values(path), arrays)
    checkpoint = read_torch_checkpoint(path)
    assert checkpoint.part == "model"
    assert checkpoint.classes == ("cell", "platelet")


def test_averaged_weights_go_before_raw_ones(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    file = TorchFile()
    raw = {name: array + 1 for name, array in arrays.items()}
    averaged = module_tree(file, arrays, MODEL, names={1: "b", 0: "a"})
    path = file.write(tmp_path / "a.pt", {"model": module_tree(file, raw, MODEL), "ema": averaged})
    same(values(path), arrays)
    assert read_torch_checkpoint(path).part == "ema"
    assert read_torch_checkpoint(path).classes == ("a", "b")


def test_averagers_pairs_and_device_wrappers_are_looked_through(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    file = TorchFile()
    wrapped = New(
        Name("torch.nn.parallel.distributed", "DistributedDataParallel"),
        {"_modules": ordered({"module": module_tree(file, arrays, MODEL)})},
    )
    averager = New(Name("utils.torch_utils", "ModelEMA"), {"ema": wrapped, "updates": 7})
    same(values(file.write(tmp_path / "a.pt", {"ema": (averager, 7)})), arrays)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precisions_become_float32(tmp_path: Path, arrays: dict[str, np.ndarray], dtype: str) -> None:
    file = TorchFile()
    stored = {name: array.astype(dtype) for name, array in arrays.items()}
    path = file.write(tmp_path / "a.pt", {"state_dict": {n: file.tensor(a) for n, a in stored.items()}})
    same(values(path), {name: array.astype(np.float32) for name, array in stored.items()})


def test_bfloat16_is_the_upper_half_of_float32(tmp_path: Path) -> None:
    file = TorchFile()
    upper = np.array([0x3F80, 0xC000, 0x0000, 0x3E80], dtype=np.uint16)
    path = file.write(tmp_path / "a.pt", {"w": file.tensor(upper, "bfloat16")})
    np.testing.assert_array_equal(values(path)["w"], np.array([1, -2, 0, 0.25], dtype=np.float32))


def test_views_of_one_storage_are_read_by_their_strides(tmp_path: Path) -> None:
    file = TorchFile()
    base = np.arange(24, dtype=np.float32)
    file.storages["0"] = base.tobytes()
    tree = {
        "transposed": rebuilt("0", "float32", 24, (4, 3), (1, 4), 2),
        "expanded": rebuilt("0", "float32", 24, (2, 3), (0, 1), 5),
        "scalar": rebuilt("0", "float32", 24, (), (), 23),
        "empty": rebuilt("0", "float32", 24, (0, 3), (3, 1), 24),
    }
    found = values(file.write(tmp_path / "a.pt", tree))
    np.testing.assert_array_equal(found["transposed"], base[2:14].reshape(3, 4).T)
    np.testing.assert_array_equal(found["expanded"], np.tile(base[5:8], (2, 1)))
    assert found["scalar"] == 23
    assert found["empty"].shape == (0, 3)


def test_compressed_checkpoints_are_read(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    file = TorchFile()
    tree = {name: file.tensor(array) for name, array in arrays.items()}
    same(values(file.write(tmp_path / "a.pt", tree, zipfile.ZIP_DEFLATED)), arrays)


TERA = 1 << 40


def hostile(file: TorchFile, sentinel: Path) -> dict[str, Any]:
    """Return trees by the words of their refusal."""
    good = file.tensor(np.zeros(4, dtype=np.float32))
    command = f"touch {sentinel}"
    return {
        "os.system": {"model": good, "x": Call(Name("os", "system"), (command,))},
        "builtins.eval": {"w": Call(Name("__builtin__", "eval"), (f"open({str(sentinel)!r}, 'w')",))},
        "posix.system": New(MODEL, {"_modules": {"a": Call(Name("posix", "system"), (command,))}}),
        "subprocess.Popen": {"w": New(MODEL, {"a": [Call(Name("subprocess", "Popen"), (["touch", str(sentinel)],))]})},
        "numpy.load": {"w": good, "x": Call(Name("numpy", "load"), (str(sentinel),))},
        f"storage '0' of {TERA} bytes, the archive has 16": {"w": rebuilt("0", "float32", TERA // 4, (4,), (1,))},
        f"claims {TERA} bytes": {"w": rebuilt("0", "float32", 4, (TERA // 4,), (0,))},
        "the archive has none": {"w": rebuilt("../0", "float32", 4, (4,), (1,))},
        "reaches beyond its storage": {"w": rebuilt("0", "float32", 4, (2, 2), (2, 2))},
        r"from element 1 on reaches": {"w": rebuilt("0", "float32", 4, (4,), (1,), 1)},
        "has no valid shape": {"w": rebuilt("0", "float32", 4, (4,), (-1,))},
        "and 1 strides": {"w": rebuilt("0", "float32", 4, (2, 2), (1,))},
    }


WORDS = list(hostile(TorchFile(), Path("x")))


@pytest.mark.parametrize("words", WORDS)
def test_hostile_pickles_are_refused_and_nothing_runs(tmp_path: Path, words: str) -> None:
    file, sentinel = TorchFile(), tmp_path / "sentinel"
    path = file.write(tmp_path / "a.pt", hostile(file, sentinel)[words])
    with pytest.raises(InputError) as error:
        read_torch_checkpoint(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "name", ["../evil", "archive/../../evil", "/etc/evil", "C:\\evil", "a\\..\\..\\evil", "\\evil"]
)
def test_a_path_outside_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    file = TorchFile()
    path = file.write(tmp_path / "a.pt", {"w": file.tensor(np.zeros(4, dtype=np.float32))})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(InputError, match="points outside the archive"):
        read_torch_checkpoint(path)


def test_a_compressed_bomb_is_refused_before_it_is_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = TorchFile()
    path = file.write(tmp_path / "a.pt", {"w": file.tensor(np.zeros(1 << 22, dtype=np.float32))}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 16

    def inflate(*_: object) -> None:
        pytest.fail("the entry was inflated")

    monkeypatch.setattr(zipfile.ZipFile, "read", inflate)
    with pytest.raises(InputError, match="would grow from .* to 16777216 bytes"):
        read_torch_checkpoint(path)


def test_many_compressed_entries_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = TorchFile()
    tree = {str(number): file.tensor(np.arange(1000, dtype=np.float32)) for number in range(3)}
    path = file.write(tmp_path / "a.pt", tree, zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(torch_archive, "MAX_INFLATED", 8000)
    with pytest.raises(InputError, match="would grow to .* at most 8000"):
        read_torch_checkpoint(path)


def test_an_entry_that_claims_more_than_the_file_has_is_refused(tmp_path: Path) -> None:
    file = TorchFile()
    path = file.write(tmp_path / "a.pt", {"w": file.tensor(np.zeros(4, dtype=np.float32))})
    data = path.read_bytes()
    directory = data.index(b"PK\x01\x02")
    entry = data.index(b"archive/data/0", directory) - 46
    sizes = (TERA - 1 & 0xFFFFFFFE).to_bytes(4, "little") * 2
    path.write_bytes(data[: entry + 20] + sizes + data[entry + 28 :])
    with pytest.raises(InputError, match="claims 4294967294 bytes"):
        read_torch_checkpoint(path)


def test_entries_that_share_bytes_are_refused(tmp_path: Path) -> None:
    file = TorchFile()
    tree = {str(number): file.tensor(np.full(4, number, dtype=np.float32)) for number in range(2)}
    path = file.write(tmp_path / "a.pt", tree)
    data = path.read_bytes()
    directory = data.index(b"PK\x01\x02")
    first, second = (data.index(f"archive/data/{number}".encode(), directory) - 46 for number in range(2))
    path.write_bytes(data[: second + 42] + data[first + 42 : first + 46] + data[second + 46 :])
    with pytest.raises(InputError, match=f"^{path}: .*damaged"):
        read_torch_checkpoint(path)


def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path: Path) -> None:
    file = TorchFile()
    marks = np.full(64, 1.25, dtype=np.float32)
    path = file.write(tmp_path / "a.pt", {"w": file.tensor(marks)})
    data = bytearray(path.read_bytes())
    data[data.index(marks.tobytes()) + 7] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="the checksum of entry 'archive/data/0' does not match"):
        read_torch_checkpoint(path)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    file = TorchFile()
    path = file.write(tmp_path / "a.pt", {"w": file.tensor(np.zeros(4, dtype=np.float32))})
    data = path.read_bytes()
    for length in range(4, len(data), 23):
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=f"^{path}: the archive is damaged .*; get the file again$"):
            read_torch_checkpoint(path)


def test_modules_that_are_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    file = TorchFile()
    file.tensor(np.zeros(4, dtype=np.float32))
    start, loop = pickled(New(MODEL, {"_modules": 0}))[:-1].split(b"\x8a\x01\x00")
    # A module that is its own child: remembered as it is made, and recalled among its modules.
    made = start.replace(b")\x81", b")\x81q\x07")
    circular = made + b"}(X\x01\x00\x00\x00ah\x07u" + loop + b"."
    with pytest.raises(InputError, match="nested too deeply or contain themselves"):
        read_torch_checkpoint(file.write(tmp_path / "a.pt", circular))


def test_a_checkpoint_without_weights_says_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains no weights .keys: epoch, optimizer"):
        read_torch_checkpoint(TorchFile().write(tmp_path / "a.pt", {"epoch": 3, "optimizer": {}}))


def test_other_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "no weights")
    with pytest.raises(InputError, match=r"without data\.pkl"):
        read_torch_checkpoint(path)
    file = TorchFile()
    script = file.write(tmp_path / "b.pt", {"w": file.tensor(np.zeros(4, dtype=np.float32))})
    copy = shutil.copy(script, tmp_path / "big.pt")
    with zipfile.ZipFile(script, "a") as archive:
        archive.writestr("archive/constants.pkl", b"")
    with pytest.raises(InputError, match=f"^{script}: .*TorchScript"):
        read_torch_checkpoint(script)
    data = Path(copy).read_bytes()
    assert data.count(b"little") == 1
    with zipfile.ZipFile(tmp_path / "c.pt", "w") as target, zipfile.ZipFile(copy) as source:
        for info in source.infolist():
            target.writestr(info, b"big" if info.filename.endswith("byteorder") else source.read(info))
    with pytest.raises(InputError, match="was written on a big-endian machine; save it again on a little"):
        read_torch_checkpoint(tmp_path / "c.pt")
