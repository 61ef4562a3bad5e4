from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kubeyolo.bundle import WEIGHTS, open_bundle
from kubeyolo.cli.app import main
from kubeyolo.storage.place import Place
from tests.weights.arrays_of_yolov5n import MODEL, upstream_arrays
from tests.weights.torch_writer import Call, Name, TorchFile, ordered, rebuilt


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))


def call(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(end.value.code or 0)


def good_file(path: Path, **changes: np.ndarray) -> Path:
    file = TorchFile()
    arrays = {**upstream_arrays(), **{name.replace("__", "."): array for name, array in changes.items()}}
    return file.write(path, ordered({name: file.tensor(array) for name, array in arrays.items()}))


def test_import_and_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = good_file(tmp_path / "a.pt")
    (tmp_path / "names.txt").write_text("cell\n\nplatelet \nother\n")
    out = tmp_path / "bundle"
    assert call("weights", "import", path, "--model", MODEL, "-o", out, "--classes", tmp_path / "names.txt") == 0
    assert "3: cell, platelet, other" in capsys.readouterr().out
    assert call("weights", "export", out, tmp_path / "b.safetensors", "--names", "yolov5", "--json") == 0
    assert json.loads(capsys.readouterr().out)["arrays"] == len(upstream_arrays())
    again = tmp_path / "again"
    assert call("weights", "import", tmp_path / "b.safetensors", "-m", MODEL, "-o", again, "--json") == 0
    assert json.loads(capsys.readouterr().out)["classes"] == ["cell", "platelet", "other"]
    files = [open_bundle(Place.of(folder)).manifest.files[WEIGHTS] for folder in (out, again)]
    assert files[0] == files[1]


def test_mismatches_are_a_table_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = good_file(tmp_path / "a.pt", model__0__conv__weight=np.zeros((16, 3, 3, 3), np.float32))
    assert call("weights", "import", path, "--model", MODEL, "-o", tmp_path / "bundle") == 2
    printed = capsys.readouterr()
    rows = [re.split(r"\s{2,}", line.strip()) for line in printed.err.splitlines() if "16 x 3 x 3 x 3" in line]
    assert rows == [["backbone.stem.conv.weight", "model.0.conv.weight", "16 x 3 x 6 x 6", "16 x 3 x 3 x 3"]]
    assert printed.err.splitlines()[-1].startswith(f"error: {path}: these are not the weights of model '{MODEL}'")
    assert "Traceback" not in printed.err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("attack", ["system", "outside", "terabyte"])
def test_hostile_files_end_with_code_2_and_leave_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], attack: str
) -> None:
    sentinel, file = tmp_path / "sentinel", TorchFile()
    tree = {name: file.tensor(array) for name, array in upstream_arrays().items()}
    if attack == "system":
        tree["model.0.conv.weight"] = Call(Name("os", "system"), (f"touch {sentinel}",))
    if attack == "terabyte":
        tree["model.0.conv.weight"] = rebuilt("0", "float32", 1 << 38, (16, 3, 6, 6), (108, 36, 6, 1))
    path = file.write(tmp_path / "a.pt", ordered(tree))
    if attack == "outside":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("../sentinel", b"")
    before = {entry for entry in tmp_path.rglob("*") if "cache" not in entry.parts}
    assert call("weights", "import", path, "--model", MODEL, "-o", tmp_path / "bundle") == 2
    error = capsys.readouterr().err
    words = {"system": "os.system", "outside": "'../sentinel'", "terabyte": f"{1 << 40} bytes"}
    assert words[attack] in error
    assert len(error.splitlines()) == 1
    assert {entry for entry in tmp_path.rglob("*") if "cache" not in entry.parts} == before
    assert not sentinel.exists()


def test_a_wrong_model_is_suggested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = good_file(tmp_path / "a.pt")
    assert call("weights", "import", path, "--model", "yolov5n-r8", "-o", tmp_path / "bundle") == 2
    assert "did you mean 'yolov5n-r7'" in capsys.readouterr().err


def test_anchors_are_given_as_people_write_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = good_file(tmp_path / "a.pt"), tmp_path / "bundle"
    text = "2,3, 4,5, 6,7,  8,9, 10,11, 12,13,  14,15, 16,17, 18,19"
    assert call("weights", "import", path, "--model", MODEL, "-o", out, "--anchors", text) == 0
    assert text in capsys.readouterr().out
    assert open_bundle(Place.of(out)).manifest.anchors[1][2] == (12.0, 13.0)
    for wrong, words in (("2,3", "anchors = [2, 3]: these are 2 numbers"), ("[2, x]", "(from --anchors)")):
        assert call("weights", "import", path, "--model", MODEL, "-o", tmp_path / "b", "--anchors", wrong) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
