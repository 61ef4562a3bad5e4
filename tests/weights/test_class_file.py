from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from kubeyolo.bundle import open_bundle
from kubeyolo.cli.app import main
from kubeyolo.errors import InputError
from kubeyolo.storage.place import Place
from kubeyolo.weights.class_file import read_class_file
from kubeyolo.weights.importing import import_weights
from tests.weights.arrays_of_yolov5n import MODEL, upstream_arrays

NAMES = ("person", "traffic light", "café")
TEXT = "\n".join(NAMES)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "a.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in upstream_arrays().items()}, path)
    return path


def read(tmp_path: Path, content: str | bytes, name: str = "names.txt") -> tuple[str, ...]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_class_file(path).classes


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.replace("\n", "\r\n") + "\r\n\r\n \t\r\n",
        TEXT.replace("\n", "\r") + "\r",
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.encode("utf-16"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
        "person \n\ttraffic light\u00a0\n\ufeffcafe\u0301\u200b\n",
        "0: person\n1: traffic light\n2: café",
        "1 person\n2 traffic light\n3 café\n",
        "0. person\r\n1. traffic light\r\n2. café\r\n",
        "0) person\n1) traffic light\n2) café",
        "0,person\n1,traffic light\n2,café",
        "2: café\n0: person\n1: traffic light",
        "[person, traffic light, café]",
        "{0: person, 1: traffic light, 2: café}",
        "['person', 'traffic light', 'café']",
        "- person\n- 'traffic light'\n- \"café\"\n",
        "path: ../coco\ntrain: images/train # 118287\nnc: 3\nnames: ['person', 'traffic light', 'café']\n",
        "names:\n  0: person\n  1: traffic light\n  2: café\ndownload: |\n  print('names: x')\n",
        "names:\n  2: café\n  0: person\n  1: traffic light\n",
        "names:\n- person\n- traffic light\n- café\n",
        json.dumps(NAMES),
        json.dumps({"names": NAMES}, ensure_ascii=False),
        json.dumps({"0": "person", "1": "traffic light", "2": "café"}),
        json.dumps({"label2id": {"person": 0, "café": 2, "traffic light": 1}}),
        json.dumps([{"name": name, "color": "#fff", "attributes": []} for name in NAMES]),
        json.dumps({"images": [], "categories": [{"id": 90, "name": "café"}, {"id": 1, "name": "person"}]}).replace(
            '}, {"id": 1', '}, {"id": 13, "name": "traffic light"}, {"id": 1'
        ),
        "item {\n  id: 1\n  name: 'person'\n}\nitem {\n  name: '/m/04'\n  id: 4\n  display_name: \"café\"\n}\n"
        "item {\n  id: 3\n  name: 'traffic light'\n}\n",
    ],
)
def test_forms_that_programs_write_are_read(tmp_path: Path, content: str | bytes) -> None:
    assert read(tmp_path, content) == NAMES


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("1 cent\n2 cent\n5 cent\n", ("1 cent", "2 cent", "5 cent")),
        ("2 door\n3 door\n", ("2 door", "3 door")),
        ("0: a\nb\n", ("0: a", "b")),
        ("0\n1\n2\n", ("0", "1", "2")),
        ("0.5\n1.5\n", ("0.5", "1.5")),
        ("1 euro\n", ("1 euro",)),
        ("0: person\n", ("person",)),
        ("- no\n- 010\n- null\n- 1e3\n", ("no", "010", "null", "1e3")),
        ("names: [on, off, 2024-01-01]", ("on", "off", "2024-01-01")),
        ("a b\n#c\nd: e\n", ("a b", "#c", "d: e")),
    ],
)
def test_names_stay_as_they_are_written(tmp_path: Path, content: str, names: tuple[str, ...]) -> None:
    assert read(tmp_path, content) == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\nb\na \n", "line 3: class 'a' is in line 1 already"),
        ("caf\u00e9\ncafe\u0301\n", "line 2: class 'café' is in line 1 already"),
        ("names:\n- a\n- b\n- a\n", "line 4: class 'a' is in line 2 already"),
        ("names:\n  0: a\n  1: ''\n", "line 3: the name of class 1 is empty"),
        ("0: a\n1:\n2: c\n", "line 2: the name of class 1 is empty"),
        ('["a", " "]', "name 2: the name of class 1 is empty"),
        ("names:\n  0: a\n  2: b\n", "class 1 has no name"),
        ("names:\n  0: a\n  0: b\n", "the key '0' is given twice .line 3, column 3"),
        ("nc: 3\nnames: [a, b]\n", "line 1: nc is 3, but 2 names are given"),
        ("names: [a, b\n", "not YAML: .*.line 2, column 1..*one name on each line"),
        ("names: [a, {b: c}]\n", "line 1: a list or mapping instead of a name"),
        ("names: coco.names\n", "line 1: names is a string; give a list"),
        ("", "this file has no class names"),
        (" \r\n\r\n", "this file has no class names"),
        ("a\nb\n".encode("utf-16-le"), "UTF-16 text without its byte order mark; save it as UTF-8"),
        (
            "chien\nchat\ntélé\n".encode("cp1252"),
            r"byte 0xe9 in line 3, at byte 2 of the line \('télé' if it is Windows",
        ),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "not text: it is a JPEG image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4f\nsize 4\n", "a pointer of git-lfs"),
        ("train = a.txt\nnames = gone.names\n", "line 2: file of names 'gone.names' is missing"),
        ('{"images": [], "licenses": []}', "neither 'names' nor 'categories' .its keys: images, licenses"),
        ('{"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}', "two categories have the id 1"),
        ("item {\n id: 1\n name: 'a'\n}\nitem {\n id: 1\n name: 'b'\n}", "line 5: id 1 is also in line 1"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path, content)
    assert "\n" not in str(error.value)


def test_darknet_data_names_a_file_next_to_it(tmp_path: Path) -> None:
    (tmp_path / "obj.names").write_text(TEXT, encoding="utf-8")
    data = "classes = 3\ntrain  = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
    assert read(tmp_path, data, "obj.data") == NAMES
    with pytest.raises(InputError, match="line 1: classes is 4, but .*obj.names has 3 names"):
        read(tmp_path, data.replace("3", "4"), "obj.data")


def test_a_category_that_groups_the_others_is_left_out_and_said(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "cells", "supercategory": "none"}]
    categories += [{"id": id_, "name": name, "supercategory": "cells"} for id_, name in ((1, "rbc"), (2, "wbc"))]
    document = {"categories": categories, "annotations": [{"id": 1, "category_id": 1}]}
    (tmp_path / "a.json").write_text(json.dumps(document))
    found = read_class_file(tmp_path / "a.json")
    assert found.classes == ("rbc", "wbc")
    assert "the category 'cells' is left out" in found.notes[-1]
    document["annotations"] = [{"id": 1, "category_id": 0}]
    assert read(tmp_path, json.dumps(document), "a.json") == ("cells", "rbc", "wbc")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\nb\n", r"2 class names \(the last name is 'b' in line 2\), but .* has 3 classes"),
        ("a\nb\nc\nd\n", r"4 class names \(the first extra name is 'd' in line 4\), but .* has 3 classes"),
        ("a\n\nb\n", r"2 class names \(line 2 is empty\), but .* has 3 classes"),
        ("a,b,c\n", "1 class names .*, but .* has 3 classes"),
    ],
)
def test_both_numbers_of_classes_are_said(tmp_path: Path, weights: Path, content: str, message: str) -> None:
    (tmp_path / "names.txt").write_text(content)
    with pytest.raises(InputError, match=message):
        import_weights(weights, MODEL, str(tmp_path / "bundle"), classes=read_class_file(tmp_path / "names.txt"))
    with pytest.raises(InputError, match="but --num-classes has 3 classes"):
        import_weights(weights, MODEL, str(tmp_path / "bundle"), 3, read_class_file(tmp_path / "names.txt"))
    assert not (tmp_path / "bundle").exists()


def test_names_are_stored_clean_and_what_was_left_out_is_said(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").write_bytes("0: a \r\n\r\n1: cafe\u0301\r\n2: c\r\n".encode("utf-16"))
    command = ["weights", "import", str(weights), "--model", MODEL, "-o", str(tmp_path / "bundle"), "--json"]
    with pytest.raises(SystemExit) as end:
        main([*command, "--classes", str(tmp_path / "names.txt")])
    printed = json.loads(capsys.readouterr().out)
    assert (end.value.code, printed["classes"]) == (0, ["a", "café", "c"])
    assert printed["notes"] == [
        "1 empty line between names left out: line 2",
        "left out the numbers 0 to 2 before the names",
    ]
    assert open_bundle(Place.of(printed["bundle"])).manifest.classes == ("a", "café", "c")
