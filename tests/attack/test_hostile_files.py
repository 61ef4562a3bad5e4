"""Hostile files end a command with one line: no stack, no hang, no escape, no control character on the terminal."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.attack.commands import Commands, Ended

DEEP = "[" * 100_000
TWIN = '"id": 1, "id": 2'
LEVELS = zip("abcdefgh", "bcdefghi", strict=True)
LAUGHS = "".join(["a: &a [x]\n", *(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in LEVELS)])

Write = Callable[[Path], Any]
Run = Callable[..., Ended]


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    started = Commands()
    yield started
    started.close()


@pytest.fixture
def run(commands: Commands, tmp_path: Path) -> Run:
    """Return a function that runs a command in the folder ``in`` and checks how it ends."""
    (tmp_path / "in").mkdir()

    def call(*arguments: str, code: int = 2) -> Ended:
        ended = commands.run(list(arguments), tmp_path / "in", tmp_path / "work")
        ended.check(code)
        return ended

    return call


@pytest.fixture
def data(tmp_path: Path, run: Run) -> Path:
    """A small COCO data set in ``in/data``."""
    root = tmp_path / "in" / "data"
    (root / "annotations").mkdir(parents=True)
    for number, split in enumerate(("train", "val")):
        (root / split).mkdir()
        Image.new("RGB", (64, 64), (90, 120, 30 + number)).save(root / split / "a.png")
        (root / "annotations" / f"{split}.json").write_text(json.dumps(document()))
    return root


def document(file_name: str = "a.png", class_name: str = "cell") -> dict[str, Any]:
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 20], "area": 400, "iscrowd": 0}
    return {
        "images": [{"id": 1, "file_name": file_name, "width": 64, "height": 64}],
        "annotations": [box],
        "categories": [{"id": 1, "name": class_name}],
    }


GOOD = json.dumps(document())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param("", "is empty", id="empty"),
        pytest.param(DEEP, "nested more than 100 deep", id="deep"),
        pytest.param(GOOD[:-1] + f', "info": {DEEP}', "nested more than 100 deep", id="deep where nothing is read"),
        pytest.param(GOOD.replace("400", f'NaN, "x": {"[" * 300}{"]" * 300}'), "nested more than", id="deep after NaN"),
        pytest.param(GOOD.replace('"id": 1', f'"id": {"9" * 5000}', 1), "too large", id="digits"),
        pytest.param(GOOD.replace("400", f"NaN, {TWIN}"), "'id' is given twice", id="twins after NaN"),
        pytest.param(GOOD.replace("cell", "\\ud800"), "category 1", id="surrogate"),
        pytest.param("\0" * 5000, "zero bytes", id="zeros"),
        pytest.param(GOOD.replace("a.png", "\\u001b[2J\\u202e.png"), "file_name", id="file name"),
        pytest.param(GOOD.replace("a.png", "../../etc/passwd"), "", id="path"),
        pytest.param(GOOD.replace("[4, 4, 20, 20]", "[" + "1," * 300_000 + "1]"), "bbox", id="long box"),
    ],
)
def test_annotations_of_coco(run: Run, data: Path, tmp_path: Path, content: str, words: str) -> None:
    (data / "annotations" / "train.json").write_text(content)
    ended = run("validate", "data", "--store", str(tmp_path / "out"))
    assert words in ended.stderr
    assert not (tmp_path / "out").exists()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def in_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        # The path of a socket is at most 108 bytes long.
        here = os.getcwd()
        os.chdir(path.parent)
        server.bind(path.name)
        os.chdir(here)


def link(target: str) -> Write:
    return lambda path: path.symlink_to(target)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


SPECIAL = [
    pytest.param(pipe, "a named pipe", id="pipe"),
    pytest.param(in_socket, "a socket", id="socket"),
    pytest.param(Path.mkdir, "folder|directory", id="folder"),
    pytest.param(link("/dev/zero"), "a device", id="device"),
    pytest.param(link("itself"), "links|symbolic", id="loop"),
    pytest.param(sparse, "at most|zero bytes", id="sparse"),
]


@pytest.mark.parametrize(("make", "words"), SPECIAL)
def test_annotations_that_are_not_files(run: Run, data: Path, tmp_path: Path, make: Write, words: str) -> None:
    target = data / "annotations" / "train.json"
    target.unlink()
    make(target)
    if target.is_symlink() and os.readlink(target) == "itself":
        target.unlink()
        target.symlink_to(target.name)
    ended = run("validate", "data", "--store", str(tmp_path / "out"))
    assert re.search(words, ended.stderr) or make is Path.mkdir


@pytest.mark.parametrize(("make", "words"), SPECIAL)
def test_configurations_that_are_not_files(run: Run, tmp_path: Path, make: Write, words: str) -> None:
    target = tmp_path / "in" / "itself"
    make(target)
    ended = run("models", "show", "yolov5n-r7", "--config", "itself")
    assert re.search(words, ended.stderr)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param("train: {lr: 010}", "leading zeros", id="octal"),
        pytest.param("train: {lr: 1:30}", "train.lr", id="base 60"),
        pytest.param("train: {lr: 0.1, lr: 0.2}", "given twice", id="twins"),
        pytest.param("train: &a {lr: 0.1}", "anchors and aliases", id="anchor"),
        pytest.param(LAUGHS, "anchors and aliases", id="laughs"),
        pytest.param("train: !!python/object/apply:os.getcwd []", "tags", id="tag"),
        pytest.param(f"train: {DEEP[:3000]}", "nested more than 50 deep", id="deep"),
        pytest.param("{a: " * 3000, "nested more than 50 deep", id="deep mappings"),
        pytest.param("x" * 2_000_000, "at most", id="long"),
        pytest.param('"\\e[2J\\u202e[/red]": 1', "unknown configuration key", id="control"),
        pytest.param('train: "' + "A" * 50_000 + '"', "it is a section", id="long value"),
    ],
)
def test_configurations(run: Run, tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "in" / "c.yaml").write_text(content)
    assert words in run("models", "show", "yolov5n-r7", "--config", "c.yaml").stderr


@pytest.mark.parametrize("value", ["[" * 5000, "010", "&a [*a]", "\x1b[2J", "9" * 5000, "!!int x"])
def test_values_of_set(run: Run, value: str) -> None:
    assert "--set" in run("models", "show", "yolov5n-r7", "--set", f"train.lr={value}").stderr


@pytest.mark.parametrize(
    "name", ["\x1b[2Jred", "a\u202eb", "a\x9bb", "[/red]x", ":smile:", "a\nb", "N" * 5000, "\u200b", "<script>"]
)
def test_names_of_classes_are_kept_as_texts_that_can_be_printed(
    run: Run, data: Path, tmp_path: Path, name: str
) -> None:
    for split in ("train", "val"):
        (data / "annotations" / f"{split}.json").write_text(json.dumps(document(class_name=name)))
    run("validate", "data", "--store", str(tmp_path / "out"), code=0)
    (manifest,) = (tmp_path / "out").rglob("dataset.json")
    (stored,) = json.loads(manifest.read_text())["classes"]
    assert stored.isprintable() and 0 < len(stored) <= 200
    assert stored == name or not name.isprintable() or len(name) > 200


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "../../outside"}, "is a path"),
        ({"name": "a\x1b[2J"}, "control"),
        ({"name": ""}, "is empty"),
        ({"schema_version": 99}, "schema version 99"),
    ],
)
def test_a_stored_data_set_cannot_lead_out_of_its_folder(
    run: Run, data: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    store = tmp_path / "out"
    run("validate", "data", "--store", str(store), code=0)
    (manifest,) = store.rglob("dataset.json")
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, **change}))
    assert words in run("anchors", str(manifest.parent), "--model", "yolov5n-r7").stderr
    shard = {"name": "../../../secret", "size": 1, "sha256": "0" * 64}
    content["splits"]["train"]["shards"] = [shard]
    manifest.write_text(json.dumps(content))
    assert "is not a key of a store" in run("anchors", str(manifest.parent), "--model", "yolov5n-r7").stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param("names: &a [x]\ntrain: train\nval: val\n", "anchors and aliases", id="anchor"),
        pytest.param(f"names: {DEEP}\ntrain: train\n", "nested more than 50 deep", id="deep"),
        pytest.param("names: [a]\nnames: [b]\ntrain: train\nval: val\n", "given twice", id="twins"),
        pytest.param("names: !!python/name:os.system\ntrain: train\n", "tags", id="tag"),
        pytest.param("names: [" + "x, " * 400_000 + "]\ntrain: train\n", "too long", id="long"),
    ],
)
def test_descriptions_of_yolo(run: Run, tmp_path: Path, content: str, words: str) -> None:
    root = tmp_path / "in" / "data"
    for split in ("train", "val"):
        (root / split / "images").mkdir(parents=True)
        (root / split / "labels").mkdir()
        Image.new("RGB", (64, 64)).save(root / split / "images" / "a.png")
        (root / split / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (root / "data.yaml").write_text(content)
    assert words in run("validate", "data", "--store", str(tmp_path / "out")).stderr


@pytest.mark.parametrize(
    ("head", "words"),
    [
        pytest.param('<!DOCTYPE a [<!ENTITY b "c">]>', "document type or entities", id="entities"),
        pytest.param('<!DOCTYPE a SYSTEM "file:///etc/passwd">', "document type or entities", id="external"),
        pytest.param("<a>" * 100_000, "not XML", id="deep"),
        pytest.param('<?xml version="1.0" encoding="x-none"?>', "encoding", id="encoding"),
        pytest.param("<annotation>" + "x" * (17 << 20), "at most", id="large"),
    ],
)
def test_annotations_in_xml(run: Run, tmp_path: Path, head: str, words: str) -> None:
    root = tmp_path / "in" / "data"
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(root / split / "a.png")
        (root / split / "a.xml").write_text(f"{head}<annotation><object><name>x</name></object></annotation>")
    assert words in run("validate", "data", "--store", str(tmp_path / "out"), "--set", "data.format=voc").stderr


@pytest.mark.parametrize("argument", ["\x1b[2J\x1b]0;x\x07", "a\u202eb", "[/red]", "a\nb", "x" * 5000])
def test_arguments_are_shown_without_control_characters_and_markup(run: Run, tmp_path: Path, argument: str) -> None:
    run("validate", argument, "--store", str(tmp_path / "out"))
    run("models", "show", argument)
