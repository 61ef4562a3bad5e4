from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest

from kubeyolo.errors import InputError
from kubeyolo.prediction.lists import expand_lists, names_in, read_list
from kubeyolo.prediction.sources import MARK, SourceFault, find_sources, natural_key
from kubeyolo.storage.place import Place
from tests.prediction.pictures import save


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")


def names_of(*arguments: str, without: Path | None = None) -> list[str]:
    return [source.name for source in find_sources(arguments, without).images if not source.fault]


def fault_of(argument: str) -> str:
    (source,) = find_sources([argument]).images
    assert source.fault
    with pytest.raises(SourceFault):
        source.read()
    return source.fault


def test_a_folder_stands_for_the_images_in_and_below_it_in_natural_order() -> None:
    touch("a/img10.jpg", "a/img2.JPG", "a/sub/img1.png", "a/notes.txt", "a/photo.heic", "a/clip.mp4")
    touch("a/.hidden.jpg", "a/._img2.jpg", "a/.git/x.jpg", "a/__MACOSX/x.jpg", "a/.DS_Store")
    found = find_sources(["a"])
    assert [source.name for source in found.images] == ["a/img2.JPG", "a/img10.jpg", "a/photo.heic", "a/sub/img1.png"]
    assert dict(found.left_out) == {".txt": 1, ".mp4": 1}


def test_a_file_without_an_ending_is_taken_by_its_content() -> None:
    save(Path("a/scan.png")).rename("a/scan")
    touch("a/README")
    assert names_of("a") == ["a/scan"]


def test_numbers_in_names_are_counted() -> None:
    assert sorted(["a10", "a9", "A1", "b"], key=natural_key) == ["A1", "a9", "a10", "b"]


def test_links_are_followed_once_and_broken_ones_are_named() -> None:
    touch("real/x.jpg")
    Path("a").mkdir()
    os.symlink("../real/x.jpg", "a/y.jpg")
    os.symlink("../a", "a/loop")
    os.symlink("nowhere", "a/z.jpg")
    found = find_sources(["a"])
    assert {source.name: source.fault for source in found.images} == {
        "a/y.jpg": "",
        "a/z.jpg": "is a link to nowhere, which does not exist",
    }


def test_patterns_go_into_folders_and_leave_out_what_is_hidden() -> None:
    touch("a/1.jpg", "a/b/2.jpg", "a/b/3.png", "a/.4.jpg")
    assert names_of("a/**/*.jpg") == ["a/1.jpg", "a/b/2.jpg"]
    assert names_of("a/b/[23].*") == ["a/b/2.jpg", "a/b/3.png"]


def test_patterns_enter_a_folder_once_however_links_lead_into_it() -> None:
    touch("a/1.jpg", "a/b/2.jpg")
    os.symlink("..", "a/b/loop")
    os.symlink("1.jpg", "a/3.jpg")
    assert names_of("a/**/*.jpg") == ["a/1.jpg", "a/3.jpg", "a/b/2.jpg"]


def test_near_names_are_looked_for_as_long_as_few_are_missing() -> None:
    touch(*(f"photo_{number:04d}.jpeg" for number in range(900)))
    begun = time.monotonic()
    images = find_sources([f"photo_{number:04d}.jpg" for number in range(5000)]).images
    assert time.monotonic() - begun < 5
    assert ["did you mean" in image.fault for image in images] == [True] * 20 + [False] * 4980


def test_what_exists_under_a_name_is_not_a_pattern() -> None:
    touch("a[1].png", "a1.png", "d[1]/x.png", "0", "video.mp4/x.png", "@list.png")
    assert names_of("a[1].png", "d[1]/*.png", "d[1]", "0", "video.mp4") == [
        "a[1].png",
        "d[1]/x.png",
        "d[1]/x.png",
        "0",
        "video.mp4/x.png",
    ]
    assert list(expand_lists(["@list.png"], io.BytesIO())) == ["@list.png"]


def test_names_are_kept_as_they_were_given_and_as_often() -> None:
    touch("a/x.jpg")
    uri = Path("a/x.jpg").absolute().as_uri()
    found = find_sources(["./a/x.jpg", "a//x.jpg", "a/x.jpg", "a/x.jpg", uri])
    assert [source.name for source in found.images][:4] == ["./a/x.jpg", "a//x.jpg", "a/x.jpg", "a/x.jpg"]
    assert {source.read() for source in found.images} == {b"x"}


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("https://host.invalid/a.jpg", ["is a web address", "download the image"]),
        ("https://host.invalid/a.mp4?x=1", ["is a video"]),
        ("rtsp://10.0.0.2:554/stream", ["is a video stream", "ffmpeg -i rtsp://10.0.0.2:554/stream"]),
        ("0", ["is a camera", "frames/%06d.jpg"]),
        ("screen", ["is a camera or a screen"]),
        ("film.MOV", ["is a video", "ffmpeg -i film.MOV"]),
        ("data:image/png;base64,iVBO", ["is a data URI"]),
        ("gs://bucket/a.jpg", ["gs:// URIs cannot be read", "minio://"]),
        ("/dev/null", ["is a device"]),
        ("phto.jpg", ["there is no such file; did you mean 'photo.jpg'?"]),
        ("absent/photo.jpg", ["nor a folder absent"]),
        ("*.png", ["no file matches this pattern"]),
        ("*.JPG", ["no file matches; 1 would match if case were ignored"]),
        ("*.txt", ["the files that match are not images (1 .txt)"]),
        ("empty", ["there are no images in this folder"]),
        ("", ["is an empty name"]),
    ],
)
def test_what_is_not_read_is_named_with_what_to_do(argument: str, words: list[str]) -> None:
    touch("photo.jpg", "notes.txt", "empty/.keep")
    fault = fault_of(argument)
    assert all(word in fault for word in words), fault


def test_only_the_one_thing_that_was_given_refuses_all() -> None:
    touch("a.jpg")
    assert find_sources(["b.jpg"]).only_fault() == "b.jpg: there is no such file; did you mean 'a.jpg'?"
    assert find_sources(["a.jpg", "b.jpg"]).only_fault() is None
    assert find_sources(["b.jpg", "b.jpg"]).only_fault() is None


def test_drawn_pictures_of_an_earlier_call_are_not_taken_again() -> None:
    touch("a/x.jpg", "a/drawn/mine.jpg")
    Path("a/drawn/x.jpg").write_bytes(b"\xff\xd8" + MARK)
    assert names_of("a", "a/**/*.jpg", without=Path("a/drawn")) == ["a/drawn/mine.jpg", "a/x.jpg"] * 2


@pytest.mark.parametrize(
    "data",
    [
        b"a b.jpg\nc.jpg",
        b"\xef\xbb\xbfa b.jpg\r\n\r\nc.jpg\r\n",
        b"a b.jpg\0c.jpg\0",
        "\ufeffa b.jpg\r\nc.jpg".encode("utf-16-le"),
        b"\"a b.jpg\"\n  'c.jpg'  \n",
    ],
)
def test_lists_are_read_however_they_were_written(data: bytes) -> None:
    assert names_in(data, "list") == ["a b.jpg", "c.jpg"]


def test_comments_in_a_list_are_left_out_unless_a_file_has_the_name() -> None:
    touch("#1.jpg", "lists/#2.jpg")
    Path("lists/all.txt").write_text("# val, night\n#1.jpg\n#2.jpg\n#3.jpg\na.jpg # not a comment\n")
    assert read_list("lists/all.txt") == ["#1.jpg", "lists/#2.jpg", "a.jpg # not a comment"]
    with pytest.raises(InputError, match="has no names of images"):
        names_in(b"# nothing\n", "list")


def test_names_that_look_like_the_beginning_of_an_image_are_names() -> None:
    assert names_in(b"BMW.jpg\n8BPS.png\n", "list") == ["BMW.jpg", "8BPS.png"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01", "list: is a PNG image, not a list of names"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01", "list: is a JPEG image, not a list of names"),
        (b"<!DOCTYPE html><html>", "list: is a web page"),
        (b"\x01\x02\x03", "list: is not text"),
        (b"\n \n", "list: has no names of images"),
    ],
)
def test_what_is_not_a_list_is_named(data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        names_in(data, "list")


def test_names_in_a_list_are_looked_for_here_and_beside_the_list() -> None:
    touch("here.jpg", "lists/beside.jpg")
    Path("lists/all.txt").write_text("here.jpg\nbeside.jpg\nabsent.jpg\n")
    assert read_list("lists/all.txt") == ["here.jpg", "lists/beside.jpg", "absent.jpg"]
    with pytest.raises(InputError, match="absent.txt: the list of images cannot be read: No such file"):
        read_list("absent.txt")


def test_images_of_a_store_are_read_by_object_and_by_prefix(minio_bucket: str) -> None:
    uri = f"minio://{minio_bucket}/photos"
    for key in ("b10.jpg", "b9.jpg", "deep/c.png", "list.txt", ".x.jpg"):
        Place.of(uri).store.write_bytes(key, key.encode())
    found = find_sources([uri, f"{uri}/b9.jpg", f"{uri}/absent"])
    assert [source.name.removeprefix(uri) for source in found.images] == [
        "/b9.jpg",
        "/b10.jpg",
        "/deep/c.png",
        "/b9.jpg",
        "/absent",
    ]
    assert [source.read() for source in found.images[:4]] == [b"b9.jpg", b"b10.jpg", b"deep/c.png", b"b9.jpg"]
    assert found.images[4].fault == "there are no images at or below this URI"
    assert dict(found.left_out) == {".txt": 1}
