"""``kubeyolo convert``: any layout in, COCO out, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kubeyolo.cli.app import main
from kubeyolo.data.folder import open_source, read_annotations
from tests.data.formats import ALL, CLASSES, FORMATS, SPLITS, coco_document, roboflow_coco, write_images, write_json

Convert = Callable[..., tuple[int, str, str]]


@pytest.fixture
def convert(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Convert:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["convert", *map(str, arguments)])
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


@pytest.mark.parametrize("name", ["roboflow_coco", "ultralytics_yolo", "devkit_voc", "cvat_images", "labelme"])
def test_every_format_becomes_the_documented_one(tmp_path: Path, convert: Convert, name: str) -> None:
    FORMATS[name](tmp_path / "in")
    code, out, _ = convert(tmp_path / "in", tmp_path / "out")
    assert code == 0
    assert out.splitlines()[1:3] == ["train: 4 images, 6 boxes", "val: 2 images, 3 boxes"]
    assert out.splitlines()[-1] == str(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["annotations", "train", "val"]
    for split, pictures in SPLITS.items():
        document = json.loads((tmp_path / "out" / "annotations" / f"{split}.json").read_text())
        wanted = coco_document(pictures)
        assert document["categories"] == wanted["categories"]
        assert document["images"] == wanted["images"]
        rows = [{key: each[key] for key in ("image_id", "category_id", "bbox")} for each in document["annotations"]]
        expected = [{key: each[key] for key in ("image_id", "category_id", "bbox")} for each in wanted["annotations"]]
        assert rows == expected
        assert sorted(path.name for path in (tmp_path / "out" / split).iterdir()) == [each.name for each in pictures]
    again = read_annotations(open_source(tmp_path / "out"))
    assert again.classes == CLASSES
    assert sorted({path.name for path in tmp_path.iterdir()} - {"cache"}) == ["in", "out"]


def test_images_are_copied_as_they_are_or_linked(tmp_path: Path, convert: Convert) -> None:
    roboflow_coco(tmp_path / "in")
    image = tmp_path / "in" / "valid" / "e.jpg"
    os.rename(image, tmp_path / "e.jpg")
    image.symlink_to(tmp_path / "e.jpg")
    assert convert(tmp_path / "in", tmp_path / "copied")[0] == 0
    assert convert(tmp_path / "in", tmp_path / "linked", "--link")[0] == 0
    for made, same in (("copied", False), ("linked", True)):
        path = tmp_path / made / "val" / "e.jpg"
        assert path.read_bytes() == image.read_bytes()
        assert not path.is_symlink()
        assert path.samefile(image) == same


def test_one_file_is_divided_and_that_is_said(tmp_path: Path, convert: Convert) -> None:
    write_images(tmp_path / "in" / "data", ALL)
    write_json(tmp_path / "in" / "labels.json", coco_document(ALL))
    code, out, _ = convert(tmp_path / "in", tmp_path / "out", "--set", "data.split=0.34")
    assert code == 0
    assert "images without splits: 6" in out
    assert "[split_made]" in out
    assert (len(list((tmp_path / "out" / "train").iterdir())), len(list((tmp_path / "out" / "val").iterdir()))) == (
        4,
        2,
    )


def test_the_place_must_be_new_or_empty(tmp_path: Path, convert: Convert) -> None:
    roboflow_coco(tmp_path / "in")
    for name in ("full", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    cases = {
        "full": "full: is not empty (mine.txt); give a new folder",
        "file": "file: exists and is not a folder",
        "in/out": "in/out: lies in the data set",
    }
    for name, message in cases.items():
        code, _, err = convert(tmp_path / "in", tmp_path / name)
        assert code == 2
        assert message in err
    assert convert(tmp_path / "in", tmp_path / "empty")[0] == 0
    assert (tmp_path / "full" / "mine.txt").read_text() == "x"


def test_nothing_is_written_when_the_data_is_refused(tmp_path: Path, convert: Convert) -> None:
    roboflow_coco(tmp_path / "in")
    (tmp_path / "in" / "valid" / "f.jpg").write_bytes(b"no image")
    code, _, err = convert(tmp_path / "in", tmp_path / "out")
    assert code == 2
    assert "f.jpg" in err
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["in"]


def test_the_format_may_be_said(tmp_path: Path, convert: Convert) -> None:
    FORMATS["ultralytics_yolo"](tmp_path / "in")
    for split, pictures in SPLITS.items():
        write_json(tmp_path / "in" / "annotations" / f"{split}.json", coco_document(pictures))
    code, _, err = convert(tmp_path / "in", tmp_path / "out")
    assert code == 2
    assert "data.format=coco or data.format=yolo" in err
    code, out, _ = convert(tmp_path / "in", tmp_path / "out", "--format", "yolo")
    assert code == 0
    assert out.startswith("YOLO with data.yaml: train, val\n")
