"""Names of images in annotations: which file of a folder each of them means."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubeyolo.data.file_names import FileNames, NameMatch, is_file_name

names = st.text("abAB01é漢 -_.(", min_size=1, max_size=8).map(lambda name: f"x{name}.jpg".replace(" .", "_."))
paths = st.lists(st.sampled_from(["images", "Train", "ä"]), max_size=2).flatmap(
    lambda folders: names.map(lambda name: "/".join([*folders, name]))
)


def folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


folders = st.lists(paths, min_size=1, max_size=6, unique_by=lambda path: folded(path.rpartition("/")[2]))
ABSENT = Path("/no/such/folder")


@given(st.lists(paths, min_size=1, max_size=6, unique=True))
def test_every_file_is_found_by_its_own_name(files: list[str]) -> None:
    found = FileNames(ABSENT, files)
    assert len(found) == len(files)
    for path in files:
        assert found.match(path) == found.match(f"./{path}") == NameMatch(path)


@given(folders, st.data())
def test_a_name_of_another_form_means_the_only_file_that_has_it(files: list[str], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(files))
    for other in (
        path.upper(),
        unicodedata.normalize("NFD", path),
        path.replace("/", "\\"),
        quote(path),
        f" {path} ",
        f"file:///home/someone/{quote(path)}",
        f"C:\\data\\{path}",
        f"some/where/else/{path}",
        path.rpartition("/")[2],
    ):
        match = FileNames(ABSENT, files).match(other)
        assert match == NameMatch(path, is_near=other != path), other


@given(names, st.lists(st.sampled_from(["a", "b", "c", "d/e"]), min_size=2, max_size=4, unique=True))
def test_a_name_that_may_be_several_files_means_none_of_them(name: str, places: list[str]) -> None:
    files = sorted(f"{place}/{name}" for place in places)
    assert FileNames(ABSENT, files).match(name) == NameMatch(name, hint=f"it may be {files[0]!r} or {files[1]!r}")


@pytest.mark.parametrize("name", ["../x.jpg", "/data/x.jpg", "a/../../x.jpg"])
def test_a_name_that_leads_out_of_the_folder_and_is_not_found_is_said_to(name: str) -> None:
    assert FileNames(ABSENT, ["y.jpg"]).match(name).leaves
    assert not FileNames(ABSENT, ["y.jpg"]).match("z/x.jpg").leaves


@given(st.text(max_size=12))
def test_names_of_files_have_no_control_characters_and_something_to_see(name: str) -> None:
    expected = bool(name.strip()) and not any(unicodedata.category(each) in ("Cc", "Zl", "Zp") for each in name)
    assert is_file_name(name) == (expected and Path(name) != Path("."))


def test_parts_of_a_name_are_as_long_as_a_file_system_takes() -> None:
    assert is_file_name("ä" * 127 + "/" + "x" * 255) and not is_file_name("ä" * 128) and not is_file_name("x" * 256)
    assert not is_file_name(None) and not is_file_name(3) and not is_file_name("\ud800.jpg")
