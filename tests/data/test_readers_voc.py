"""Pascal VOC: the way of counting, difficult objects, and files that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeyolo.data.layout import local_layout
from kubeyolo.data.raw import RawSplit
from kubeyolo.data.readers.voc import VocReader
from kubeyolo.errors import InputError
from tests.data.small_dataset import encoded_image

BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
SIZE = "<size><width>40</width><height>20</height><depth>3</depth></size>"


def obj(name: str, *corners: object, more: str = "") -> str:
    return f"<object><name>{name}</name>{more}{BOX.format(*corners)}</object>"


def annotation(*objects: str, head: str = f"<filename>a.jpg</filename>{SIZE}") -> str:
    return f"<annotation>{head}{''.join(objects)}</annotation>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "JPEGImages" / "a.jpg").write_bytes(encoded_image(40, 20, 1))
    return tmp_path


def write(folder: Path, text: str | bytes, name: str = "a") -> None:
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "Annotations" / f"{name}.xml").write_bytes(data)


def read(folder: Path, split: str = "all") -> RawSplit:
    layout = local_layout(folder)
    return VocReader(folder, layout).read(layout.splits[split])


@pytest.mark.parametrize(
    ("corners", "box"),
    [
        ((1, 1, 40, 20), [0, 0, 40, 20]),  # the first column is 1, and the last belongs to the box
        ((11, 6, 30, 15), [10, 5, 20, 10]),
        ((0, 5, 20, 10), [0, 5, 20, 5]),  # a column 0 is not Pascal VOC's way of counting
        ((1.5, 2.5, 10.5, 12.5), [1.5, 2.5, 9, 10]),  # nor is one between two pixels
        (("3.0", "4.0", "10.0", "12.0"), [2, 3, 8, 9]),
    ],
)
def test_coordinates_count_from_one_unless_they_show_otherwise(
    folder: Path, corners: tuple[object, ...], box: list[float]
) -> None:
    write(folder, annotation(obj("cat", *corners)))
    assert list(read(folder).boxes.boxes) == [box]


def test_all_files_of_a_data_set_count_alike(folder: Path) -> None:
    (folder / "JPEGImages" / "b.jpg").write_bytes(encoded_image(40, 20, 2))
    write(folder, annotation(obj("cat", 11, 6, 30, 15)))
    write(folder, annotation(obj("cat", 0, 6, 30, 15)), "b")
    write(folder, b"\0\5\x16\7", "._b")  # what a Mac leaves on other disks
    assert list(read(folder).boxes.boxes) == [[11, 6, 19, 9], [0, 6, 30, 9]]


def test_tools_that_count_from_zero_are_known(folder: Path) -> None:
    source = "<filename>a.jpg</filename><source><database>roboflow.com</database></source>"
    write(folder, annotation(obj("cat", 11, 6, 30, 15), head=source + SIZE))
    assert list(read(folder).boxes.boxes) == [[11, 6, 19, 9]]


def test_difficult_objects_are_crowds_and_parts_are_left_out(folder: Path) -> None:
    part = f"<part><name>head</name>{BOX.format(1, 1, 5, 5)}</part>"
    write(
        folder,
        annotation(
            obj("person", 2, 3, 20, 18, more=f"<difficult>0</difficult>{part}"),
            obj("dog", 5, 5, 9, 9, more="<difficult>1</difficult>"),
        ),
    )
    raw = read(folder)
    assert list(raw.categories.names) == ["dog", "person"]
    assert list(raw.boxes.category_ids) == [1, 0]
    assert list(raw.boxes.boxes) == [[1, 2, 19, 16], [4, 4, 5, 5]]
    assert list(raw.boxes.crowds) == [0, 1]


def test_classes_are_those_of_all_splits(folder: Path) -> None:
    (folder / "JPEGImages" / "b.jpg").write_bytes(encoded_image(40, 20, 2))
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    (folder / "ImageSets" / "Main" / "val.txt").write_text("b 1\n")
    write(folder, annotation(obj("dog", 2, 3, 20, 18)))
    write(folder, annotation(obj("ant", 2, 3, 20, 18)), "b")
    for split, number in (("train", 1), ("val", 0)):
        raw = read(folder, split)
        assert list(raw.categories.names) == ["ant", "dog"]
        assert list(raw.boxes.category_ids) == [number]


def test_the_image_is_found_by_the_name_of_the_annotations(folder: Path) -> None:
    write(folder, annotation(obj("cat", 2, 3, 20, 18), head=f"<filename>C:\\other\\export_7.png</filename>{SIZE}"))
    assert list(read(folder).images.names) == ["a.jpg"]


def test_an_absent_size_is_left_to_the_checks(folder: Path) -> None:
    write(folder, annotation(obj("cat", 2, 3, 20, 18), head="<filename>a.jpg</filename>"))
    raw = read(folder)
    assert (list(raw.images.widths), list(raw.images.heights)) == ([None], [None])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings(folder: Path, encoding: str) -> None:
    write(folder, annotation(obj("Käfer", 2, 3, 20, 18)).encode(encoding))
    assert list(read(folder).categories.names) == ["Käfer"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object>", "a.xml: not XML"),
        (annotation("<object><name></name></object>"), r"a.xml: object 1 has no name; write"),
        (annotation("<object><name>cat</name></object>"), r"a.xml: object 1 \(cat\) has no bndbox; draw a box"),
        (annotation(obj("cat", 1, "x", 3, 4)), r"object 1 \(cat\) has the ymin 'x', which is not a number"),
        (annotation(obj("cat", 1, 2, 3, "")), r"object 1 \(cat\) has no ymax"),
        ("<thing></thing>", "not Pascal VOC: its root is <thing>, not <annotation>"),
        (annotation(obj("K\udce4fer", 2, 3, 20, 18)).encode("utf-8", "surrogateescape"), "not UTF-8 text: byte 0x"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>', "has a document type or entities"),
    ],
)
def test_wrong_files_are_named(folder: Path, text: str | bytes, message: str) -> None:
    write(folder, text)
    with pytest.raises(InputError, match=message):
        read(folder)


def test_an_image_of_a_list_without_a_file_is_named(folder: Path) -> None:
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "trainval.txt").write_text("a\nb\n")
    write(folder, annotation(obj("cat", 2, 3, 20, 18)))
    with pytest.raises(InputError, match=r"trainval.txt: line 2 names b, but there is no Annotations/b.xml"):
        read(folder)
