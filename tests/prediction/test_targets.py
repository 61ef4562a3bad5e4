from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kubeyolo.errors import InputError
from kubeyolo.prediction.sources import find_sources, is_drawn
from kubeyolo.prediction.targets import plan_targets, write_picture
from tests.prediction.pictures import picture, save


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.jpg", "a/sub/x.jpg", "b/x.jpg", "b/x.png", "b/x.tif", "b/x.webp"):
        save(Path(name))
    return tmp_path


def planned(*arguments: str, output: str = "out") -> list[str]:
    return [str(path) for path in plan_targets(find_sources(arguments).images, Path(output))]


@pytest.mark.parametrize(
    ("arguments", "targets"),
    [
        (["a/x.jpg"], ["out/x.jpg"]),
        (["a"], ["out/sub/x.jpg", "out/x.jpg"]),
        (["a/*.jpg"], ["out/x.jpg"]),
        (["a/x.jpg", "b/x.jpg"], ["out/a/x.jpg", "out/b/x.jpg"]),
        (["a", "b/*.jpg"], ["out/a/sub/x.jpg", "out/a/x.jpg", "out/b/x.jpg"]),
        (["b"], ["out/x.jpg", "out/x.png", "out/x.tif.png", "out/x.webp.jpg"]),
        (["a/x.jpg", "a/x.jpg"], ["out/x.jpg", "out/x.jpg"]),
        (["absent.jpg", "a/x.jpg"], ["out/image.jpg", "out/x.jpg"]),
    ],
)
def test_drawn_pictures_lie_to_each_other_as_the_images_do(arguments: list[str], targets: list[str]) -> None:
    assert planned(*arguments) == targets


def test_two_images_are_never_drawn_into_one_file() -> None:
    save(Path("c/x.tif.png"))
    save(Path("c/x.tif"))
    assert planned("c/x.tif", "c/x.tif.png") == ["out/x.tif.png", "out/x.tif-2.png"]


@pytest.mark.parametrize("output", ["a", "a/../a", "a/sub", "b"])
def test_the_folder_of_the_images_is_refused(output: str) -> None:
    with pytest.raises(InputError, match="the images are in this folder"):
        planned("a", "b/x.png", output=output)


def test_a_picture_of_somebody_else_is_not_written_over_and_an_own_one_is() -> None:
    save(Path("out/x.jpg"))
    with pytest.raises(InputError, match="out/x.jpg: exists, and was not drawn by this command"):
        planned("a/x.jpg")
    for name in ("x.jpg", "x.png"):
        Path("out", name).unlink(missing_ok=True)
        write_picture(picture(), Path("out", name))
        assert is_drawn(Path("out", name))
    assert planned("a/x.jpg") == ["out/x.jpg"]


def test_what_cannot_be_read_needs_no_place_and_thousands_of_it_no_time() -> None:
    save(Path("in/x.png"))
    save(Path("drawn/image.jpg"))
    sources = find_sources(["in/x.png", *(f"in/{number}.png" for number in range(4000))]).images
    begun = time.monotonic()
    assert plan_targets(sources, Path("drawn"))[0] == Path("drawn/x.png")
    assert time.monotonic() - begun < 2


def test_a_folder_that_cannot_be_made_is_refused_before_any_work() -> None:
    with pytest.raises(InputError, match="the folder cannot be created"):
        planned("a/x.jpg", output="b/x.png/out")


def test_a_picture_too_wide_for_jpeg_becomes_png() -> None:
    written = write_picture(Image.new("RGB", (65501, 2), (1, 2, 3)), Path("out/wide.jpg"))
    assert written.path == "out/wide.jpg.png" and "65501 x 2 pixels are too many for JPEG" in written.note
    assert np.asarray(Image.open(written.path)).shape == (2, 65501, 3)
    assert [path.name for path in Path("out").iterdir()] == ["wide.jpg.png"]
