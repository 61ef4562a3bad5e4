from __future__ import annotations

import os
import re
import threading

import cv2
import numpy as np
import pytest

from kubeyolo.data.checks import check_image, check_images
from kubeyolo.data.shards import write_dataset
from kubeyolo.errors import InputError
from kubeyolo.storage.place import Place
from tests.data.image_files import saved, smooth_image, stored_turned
from tests.data.small_dataset import encoded_image


def codes(checked):
    return [note.code for note in checked.notes]


def test_images_are_yielded_in_order(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(30)]
    for i, path in enumerate(paths):
        path.write_bytes(saved(smooth_image(20 + i, 30, i), "PNG"))
    checked = list(check_images(paths, [None] * 30, threads=3))
    assert [(image.width, image.height) for image in checked] == [(20 + i, 30) for i in range(30)]
    assert [image.data for image in checked] == [path.read_bytes() for path in paths]
    assert len({image.hash for image in checked}) == 30


def test_few_files_are_in_memory_at_a_time(tmp_path, monkeypatch):
    started = threading.Semaphore(0)
    monkeypatch.setattr("kubeyolo.data.checks.check_image", lambda *_: started.release())
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    checked = check_images([path] * 500, [None] * 500, threads=2)
    for _ in range(3):
        next(checked)
    checked.close()
    count = 0
    while started.acquire(blocking=False):
        count += 1
    assert 3 <= count <= 20


def test_real_images_pass(shared):
    paths = sorted((shared / "data/coco_cc/val").iterdir())
    checked = list(check_images(paths, [None] * len(paths)))
    assert len(checked) == 57
    assert not any(image.fault for image in checked)
    assert sum(len(image.data) for image in checked) == sum(path.stat().st_size for path in paths)


def test_missing_files_are_told_apart_from_damaged_ones(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    paths = [tmp_path / name for name in ("absent.jpg", "empty.jpg", "folder.jpg")]
    checked = list(check_images(paths, [(4, 5)] * 3))
    assert [image.fault_code for image in checked] == ["image_missing", "image_damaged", "image_missing"]
    assert checked[0].fault == "is missing"
    assert checked[1].fault.startswith("is empty (zero bytes)")
    assert checked[2].fault == "cannot be read (Is a directory)"


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
def test_whole_files_of_every_kind_pass_even_with_bytes_after_them(extension):
    data = encoded_image(31, 47, 5, extension)
    for file in (data, data + b"\0" * 100):
        checked = check_image(file, (31, 47))
        assert (checked.fault, checked.fault_code, checked.notes) == ("", "", ())
        assert (checked.width, checked.height, checked.orientation) == (31, 47, 1)


# What is annotated, of an image of 90 x 40 pixels as stored, and what is done about its tag.
ANNOTATED = [
    (6, (40, 90), 6, (40, 90), ""),
    (6, None, 6, (40, 90), ""),
    (6, (90, 40), 1, (90, 40), ""),
    (3, (90, 40), 3, (90, 40), ""),
    (3, (40, 90), 3, (90, 40), "size_differs"),
    (6, (80, 180), 6, (40, 90), "size_scaled"),
    (6, (180, 80), 1, (90, 40), "size_scaled"),
    (8, (64, 64), 8, (40, 90), "size_differs"),
    (1, (180, 80), 1, (90, 40), "size_scaled"),
    (1, (40, 90), 1, (90, 40), "size_differs"),
    (1, (90, 41), 1, (90, 40), "size_differs"),
]


@pytest.mark.parametrize(("tag", "annotated", "orientation", "size", "code"), ANNOTATED)
def test_the_annotated_size_decides_whether_an_image_is_turned(tag, annotated, orientation, size, code):
    data = saved(smooth_image(90, 40), "PNG", tag)
    checked = check_image(data, annotated)
    assert (checked.orientation, (checked.width, checked.height), checked.fault_code) == (orientation, size, code)
    assert codes(checked) == ["orientation"] * (tag != 1)
    if code:
        assert checked.fault.startswith(f"has {size[0]} x {size[1]} pixels, but the annotations have {annotated[0]} x ")


def test_square_images_are_turned():
    checked = check_image(saved(smooth_image(40, 40), "PNG", 5), (40, 40))
    assert (checked.orientation, checked.notes[0].words) == (5, "EXIF orientation 5, applied")


def test_orientation_can_be_ignored():
    checked = check_image(saved(smooth_image(90, 40), "PNG", 6), (90, 40), apply_orientation=False)
    assert (checked.orientation, checked.width, checked.fault) == (1, 90, "")
    checked = check_image(saved(smooth_image(90, 40), "PNG", 6), (40, 90), apply_orientation=False)
    assert checked.fault == "has 90 x 40 pixels, but the annotations have 40 x 90; width and height are swapped"


@pytest.mark.parametrize("scale", [0.5, 0.73, 1.5, 3.2])
def test_a_copy_of_another_size_is_told_from_another_image(scale):
    scaled = (round(640 * scale), round(427 * scale))
    data = saved(smooth_image(640, 427), "BMP")
    assert check_image(data, scaled).fault_code == "size_scaled"
    assert check_image(data, (scaled[0], scaled[1] + 40)).fault_code == "size_differs"


BAD_FILES = {
    "missing": (None, "is missing"),
    "zero bytes": (b"", "is empty (zero bytes)"),
    "text": (b"<html>404</html>", "is a web page"),
    "truncated": (encoded_image(32, 48, 2)[:-500], "is a truncated JPEG (the lower "),
    "header only": (encoded_image(32, 48, 2)[:20], "is a truncated JPEG"),
    "truncated PNG": (encoded_image(32, 48, 2, ".png")[:-200], "is a damaged PNG"),
    "truncated WebP": (encoded_image(32, 48, 2, ".webp")[:-20], "is a truncated WebP"),
    "truncated BMP": (encoded_image(32, 48, 2, ".bmp")[:-20], "is a truncated BMP"),
    "other size": (encoded_image(32, 47, 2), "has 32 x 47 pixels, but the annotations have 32 x 48"),
    "turned": (encoded_image(48, 32, 2), "has 48 x 32 pixels, but the annotations have 32 x 48; width and"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_image_is_one_clear_line(small_folder, tmp_path, case):
    data, expected = BAD_FILES[case]
    path = small_folder / "train/002.jpg"
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        write_dataset(small_folder, Place.of(tmp_path / "store"))
    message = str(caught.value)
    assert message.startswith(f"{path} (image 2 of train.json) {expected}")
    assert re.search(
        r"; (replace the files, or remove them from the|export the) annotations.* \[(image|size)_\w+\]$", message
    )
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_other_bad_images_are_counted(small_folder, tmp_path):
    for name in ("001", "003"):
        (small_folder / f"train/{name}.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"001\.jpg \(image 1 of train\.json\) is empty .* \(and 1 more\)"):
        write_dataset(small_folder, Place.of(tmp_path / "store"))


def test_decoders_write_nothing_to_the_terminal(capfd):
    noise = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    for extension in (".jpg", ".png", ".tiff", ".webp", ".bmp"):
        data = cv2.imencode(extension, noise)[1].tobytes()
        for place in range(40, len(data), len(data) // 7):
            check_image(data[:place], None)
            check_image(data[:place] + bytes(30) + data[place + 30 :], None)
    profile = saved(stored_turned(noise, 1), "PNG", icc_profile=b"not a profile")
    assert check_image(profile, None).fault == ""
    assert capfd.readouterr() == ("", "")


def test_a_pipe_in_place_of_an_image_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (checked,) = check_images([tmp_path / "pipe.jpg"], [(4, 4)])
    assert (checked.fault, checked.fault_code) == ("is not a regular file", "image_missing")
