"""YOLO's label files: classes, polygons, sizes, and lines that are wrong."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kubeyolo.data.layout import local_layout
from kubeyolo.data.raw import RawSplit
from kubeyolo.data.readers import yolo
from kubeyolo.errors import InputError
from tests.data.small_dataset import encoded_image


def read(root: Path, split: str = "all") -> RawSplit:
    layout = local_layout(root)
    return yolo.read(root, layout.splits[split], layout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a data set of one image of 40 x 20 pixels, without splits."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(encoded_image(40, 20, 1))
    (tmp_path / "classes.txt").write_text("bolt\nnut\n")
    return tmp_path


def label(folder: Path, text: str | bytes) -> None:
    (folder / "labels" / "a.txt").write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("line", "boxes"),
    [
        ("0 0.5 0.5 0.5 0.5", [[10, 5, 20, 10]]),
        ("1.0 5e-1 .5 1 1", [[0, 0, 40, 20]]),
        ("0 0.25 0.25 0.75 0.5 0.5 0.75", [[10, 5, 20, 10]]),  # a polygon of three points
        ("1 0.1 0.2 0.3 0.2 0.3 0.4 0.1 0.4", [[4, 4, 8, 4]]),  # an oriented box
        ("", []),
        ("# note\n\n0 0.5 0.5 0.5 0.5\n", [[10, 5, 20, 10]]),
        ("0 1.0 0.5 0.5 0.5", [[30, 5, 20, 10]]),  # leaves the image: for the checks of all formats
    ],
)
def test_lines_become_boxes_in_pixels(folder: Path, line: str, boxes: list[list[float]]) -> None:
    label(folder, line)
    raw = read(folder)
    assert [[round(value, 9) for value in box] for box in raw.boxes.boxes] == boxes
    assert list(raw.images.names) == ["a.jpg"]
    assert (list(raw.images.widths), list(raw.images.heights)) == ([40], [20])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings_and_line_ends_of_windows(folder: Path, encoding: str) -> None:
    label(folder, "0 0.5 0.5 0.5 0.5\r\n1 0.5 0.5 1 1\r\n".encode(encoding))
    (folder / "classes.txt").write_bytes("Schraube ß\r\n螺母\r\n".encode(encoding))
    raw = read(folder)
    assert list(raw.boxes.category_ids) == [0, 1]
    assert list(raw.categories.names) == ["Schraube ß", "螺母"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "2 0.5 0.5 0.5 0.5",
            r"a.txt: line 1 has the class 2, but the data set has 2 names of classes, numbered from 0; correct",
        ),
        ("-1 0.5 0.5 0.5 0.5", "line 1 has the class -1"),
        ("0.5 0.5 0.5 0.5 0.5", "line 1 has the class 0.5"),
        ("nan 0.5 0.5 0.5 0.5", "line 1 has the class nan"),
        ("0 0.5 0.5 0.5 0.5\nnut 0.5 0.5 0.5 0.5", "line 2 is 'nut 0.5 0.5 0.5 0.5'; expected numbers: class, centre"),
        ("0 0,5 0,5 0,5 0,5", "expected numbers"),
        ("0 0.5 0.5 0.5", r"line 1 has 3 numbers after the class; expected four"),
        ("0 0.5 0.5 0.5 0.5 0.9", r"has 5 numbers after the class \(a detection with its confidence\?\)"),
        ("0 20 10 20 10", r"line 1 is '0 20 10 20 10'; expected fractions of the image \(0 to 1\)"),
        (b"0 0.5 0.5 0.5 0.5\n\xff", "not UTF-8 text: byte 0xff in line 2.*; save it as UTF-8"),
    ],
)
def test_wrong_lines_are_named(folder: Path, text: str | bytes, message: str) -> None:
    label(folder, text)
    with pytest.raises(InputError, match=message):
        read(folder)


def test_fractions_are_of_the_image_as_a_viewer_shows_it(folder: Path) -> None:
    data = encoded_image(40, 20, 1)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (folder / "images" / "a.jpg").write_bytes(data[:2] + segment + data[2:])
    label(folder, "0 0.5 0.5 0.5 0.5")
    raw = read(folder)
    assert (list(raw.images.widths), list(raw.images.heights)) == ([20], [40])
    assert list(raw.boxes.boxes) == [[5, 10, 10, 20]]


def test_an_image_that_is_damaged_is_left_to_the_checks_of_images(folder: Path) -> None:
    label(folder, "0 0.5 0.5 0.5 0.5")
    (folder / "images" / "b.jpg").write_bytes(b"nothing")
    (folder / "labels" / "b.txt").write_text("0 0.5 0.5 0.5 0.5")
    raw = read(folder)
    assert list(raw.images.names) == ["a.jpg", "b.jpg"]
    assert list(raw.images.widths) == [40, None]
    assert list(raw.boxes.image_ids) == [1]


def test_without_names_of_classes_it_says_where_to_write_them(folder: Path) -> None:
    label(folder, "0 0.5 0.5 0.5 0.5")
    (folder / "classes.txt").unlink()
    with pytest.raises(InputError, match="no names of classes; write them into classes.txt, a name on each line"):
        read(folder)


def test_lists_of_classes_that_differ_are_refused(tmp_path: Path) -> None:
    for split, names in (("train", "bolt\nnut"), ("valid", "nut\nbolt")):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.jpg").write_bytes(encoded_image(40, 20, 1))
        (tmp_path / split / "a.txt").write_text("0 0.5 0.5 0.5 0.5")
        (tmp_path / split / "_darknet.labels").write_text(names)
    with pytest.raises(InputError, match="train/_darknet.labels and valid/_darknet.labels have different names"):
        read(tmp_path, "train")


def test_keypoints_after_the_box_are_left_out(folder: Path) -> None:
    described = "path: .\ntrain: images\nval: images\nkpt_shape: [2, 2]\nnames: [bolt, nut]\n"
    (folder / "data.yaml").write_text(described)
    label(folder, "0 0.5 0.5 0.5 0.5 0.1 0.1 0.2 0.2")
    assert list(read(folder, "train").boxes.boxes) == [[10, 5, 20, 10]]


def test_lists_of_images_say_the_split(folder: Path) -> None:
    for name in "bcd":
        (folder / "images" / f"{name}.png").write_bytes(encoded_image(40, 20, 1, ".png"))
    label(folder, "0 0.5 0.5 0.5 0.5")
    (folder / "data.yaml").write_text("train: train.txt\nval: val.txt\nnames: [bolt, nut]\n")
    (folder / "train.txt").write_text("/home/me/cells/images/a.jpg\n./images/b.png\nimages/gone.png\n")
    (folder / "val.txt").write_text("C:\\cells\\images\\c.png\n")
    assert list(read(folder, "train").images.names) == ["a.jpg", "b.png", "gone.png"]
    layout = local_layout(folder)
    with pytest.raises(InputError, match="none of its 1 images has a label file"):
        yolo.read(folder, layout.splits["val"], layout)


def test_many_labels_are_read_fast(folder: Path) -> None:
    pixels = cv2.imencode(".png", np.zeros((20, 40, 3), np.uint8))[1].tobytes()
    for i in range(500):
        (folder / "images" / f"{i:04d}.png").write_bytes(pixels)
        (folder / "labels" / f"{i:04d}.txt").write_text("0 0.5 0.5 0.5 0.5\n" * 20)
    label(folder, "")
    raw = read(folder)
    assert len(raw.boxes.boxes) == 10_000
    assert raw.boxes.image_ids[-1] == 500


@pytest.mark.parametrize("name", ["a.TXT", "A.txt", "a.jpg.txt"])
def test_label_files_of_other_case_or_with_the_suffix_of_the_image_are_near(folder: Path, name: str) -> None:
    (folder / "images" / "b.jpg").write_bytes(encoded_image(40, 20, 2))
    (folder / "labels" / "b.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    (folder / "labels" / name).write_text("0 0.5 0.5 0.5 0.5\n")
    raw = read(folder)
    assert raw.boxes.category_ids == [0, 1]
    assert [(finding.code, finding.count) for finding in raw.findings] == [("name_near", 1)]


def test_label_files_without_image_are_counted_and_notes_are_not(folder: Path) -> None:
    label(folder, "0 0.5 0.5 0.5 0.5\n")
    (folder / "labels" / "other.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (folder / "labels" / "notes.txt").write_text("drawn on a Friday\n")
    raw = read(folder)
    assert [(finding.code, finding.count) for finding in raw.findings] == [("image_unknown", 1)]
    assert "labels/other.txt" in raw.findings[0].first


def test_names_of_classes_in_yaml_are_read_as_written(folder: Path) -> None:
    label(folder, "0 0.5 0.5 0.5 0.5\n")
    (folder / "data.yaml").write_text("train: images\nnames: [no, 007, 1.10]\n")
    assert read(folder).categories.names == ["no", "007", "1.10"]
