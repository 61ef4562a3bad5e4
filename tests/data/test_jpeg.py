from __future__ import annotations

import io
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from kubeyolo.data.decode import decode_file, decode_image
from kubeyolo.data.headers import ImageFault
from kubeyolo.data.jpeg import lost_intervals
from tests.data.image_files import saved

FORMS = {
    "sequential": {},
    "optimized": {"optimize": True},
    "progressive": {"progressive": True},
    "restarting": {"restart_marker_blocks": 8},
    "grey": {},
}


def photograph(form):
    """Return a JPEG with detail at two scales."""
    rng = np.random.default_rng(3)
    coarse = cv2.resize(rng.integers(40, 216, (12, 16, 3)).astype(np.uint8), (320, 240)).astype(int)
    pixels = (coarse + rng.integers(-30, 31, coarse.shape)).astype(np.uint8)
    image = Image.fromarray(pixels).convert("L" if form == "grey" else "RGB")
    return saved(image, "JPEG", quality=90, **FORMS[form])


def hole(data, start, stop, fill=0):
    """Return a file of which the part from ``start`` to ``stop`` (0 to 1) is overwritten."""
    first, last = int(len(data) * start), int(len(data) * stop)
    return data[:first] + bytes([fill]) * (last - first) + data[last:]


def told(data):
    """Return code and words of what is damaged."""
    try:
        notes = decode_file(data).notes
    except ImageFault as fault:
        return "image_damaged", str(fault)
    return (notes[0].code, notes[0].words) if notes else ("", "")


@pytest.mark.parametrize("form", FORMS)
def test_damage_is_refused_or_told_by_how_much_is_lost(form, capfd):
    data = photograph(form)
    assert told(data) == ("", "")
    assert told(data + bytes(500)) == told(data + b"trailing words") == ("", "")
    for ended in (data[:-2], data[:-2] + bytes(300), data[:-1]):
        assert told(ended) == ("jpeg_without_end", "no end marker; all pixels are there")
    for start, stop in ((0.5, 0.99), (0.3, 0.9), (0.15, 0.5), (0.4, 0.46)):
        assert told(hole(data, start, stop))[0] == "image_damaged", (start, stop)
    assert told(hole(data, 0.97, 0.99))[0] == "image_warning"
    assert told(data[: int(len(data) * 0.2)])[0] == "image_damaged"
    assert told(data[: int(len(data) * 0.2)] + bytes(int(len(data) * 0.8)))[0] == "image_damaged"
    assert told(data[: int(len(data) * 0.98)])[0] == "image_warning"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("form", ["sequential", "optimized", "grey"])
def test_the_part_that_is_lost_is_told(form):
    data = photograph(form)
    code, words = told(data[: len(data) // 2])
    assert code == "image_damaged"
    part = int(words.split("the lower ")[1].split(" %")[0])
    assert abs(part - 50) <= 5
    code, words = told(hole(data, 0.6, 0.8))
    assert code == "image_damaged"
    part = int(words.split("about ")[1].split(" %")[0])
    assert abs(part - 40) <= 5


def test_bytes_between_the_pixels_and_the_end_marker_are_a_warning_alone():
    data = photograph("sequential")
    padded = data[:-2] + bytes(300) + data[-2:]
    code, words = told(padded)
    assert code == "image_warning" and "extraneous bytes before marker 0xd9" in words
    np.testing.assert_array_equal(decode_image(padded), decode_image(data))


@pytest.mark.parametrize("marker", [b"\xff\xdb", b"\xff\xc4", b"\xff\xc0", b"\xff\xda"])
def test_bytes_between_the_segments_of_the_header_are_a_warning_alone(marker):
    data = photograph("sequential")
    at = data.index(marker)
    padded = data[:at] + bytes(20) + data[at:]
    code, words = told(padded)
    assert code == "image_warning" and words == "20 bytes too many in the header"
    np.testing.assert_array_equal(decode_image(padded), decode_image(data))
    assert told(hole(padded, 0.5, 0.9))[0] == "image_damaged"


def test_versions_and_transforms_that_do_not_exist_are_a_warning_alone():
    data = photograph("sequential")
    at = data.index(b"JFIF") + 5
    inks = saved(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 4)).astype(np.uint8), "CMYK"), "JPEG"
    )
    adobe = inks.index(b"Adobe") + 11
    ycck = inks[:adobe] + b"\2" + inks[adobe + 1 :]
    for whole, broken, fault in (
        (data, data[:at] + b"\7" + data[at + 1 :], "JFIF 7.01"),
        (ycck, inks[:adobe] + b"\x09" + inks[adobe + 1 :], "colour transform 9 of Adobe"),
    ):
        assert told(broken) == ("image_warning", f"{fault}, which does not exist")
        np.testing.assert_array_equal(decode_image(broken), decode_image(whole))


def test_noise_in_the_middle_of_a_sequential_jpeg_is_refused():
    data = photograph("sequential")
    noise = np.random.default_rng(0).integers(0, 255, 2000).astype(np.uint8).tobytes()
    at = len(data) // 3
    code, words = told(data[:at] + noise + data[at + 2000 :])
    assert code == "image_damaged" and words.startswith("is a damaged JPEG (")


def test_damage_between_restart_markers_is_a_warning_where_it_stays_there():
    data = photograph("restarting")
    code, _ = told(hole(data, 0.5, 0.5 + 400 / len(data)))
    assert code == "image_warning"


def test_an_embedded_thumbnail_is_not_taken_for_the_image():
    data = photograph("sequential")
    thumbnail = saved(Image.new("RGB", (16, 16)), "JPEG")
    exif = b"Exif\0\0" + b"II*\0\x08\0\0\0\0\0\0\0\0\0" + thumbnail
    data = data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
    assert told(data) == ("", "")
    assert decode_image(data).shape == (240, 320, 3)
    assert told(data[: len(data) // 2])[0] == "image_damaged"


@pytest.mark.parametrize("optimize", [False, True])
def test_images_with_large_plain_areas_are_whole(optimize):
    image = np.full((600, 800, 3), 255, np.uint8)
    image[300:400, 200:500] = np.random.default_rng(0).integers(0, 256, (100, 300, 3))
    for quality in (50, 75, 92):
        data = saved(image, "JPEG", quality=quality, optimize=optimize)
        assert told(data) == ("", "")
        assert told(data[:-2])[0] == "jpeg_without_end"
    grey = saved(Image.new("RGB", (640, 480), (128, 128, 128)), "JPEG", optimize=optimize)
    assert told(grey)[0] == "image_constant"


def test_a_short_hole_of_zeros_that_stands_for_as_many_blocks_is_found():
    data = photograph("optimized")
    silent = 0
    for step in range(30):
        start = int(len(data) * (0.3 + step / 100))
        broken = data[:start] + bytes(512) + data[start + 512 :]
        code, words = told(broken)
        assert code == "image_damaged", step
        silent += "a run of 5" in words
    assert silent >= 1


def test_a_damaged_header_is_refused():
    data = photograph("sequential")
    tables = data.index(b"\xff\xc4") + 4
    for start in (tables, data.index(b"\xff\xc0")):
        assert told(data[:start] + b"\xaa" * 40 + data[start + 40 :])[0] == "image_damaged"
    assert told(data[:20])[1].startswith("is a truncated JPEG")


def test_where_the_decoder_gives_up_nothing_of_the_memory_before_shows():
    data = photograph("progressive")
    at = len(data) * 9 // 10
    broken = data[:at] + b"\xff\x76" + data[at + 2 :]
    assert told(broken)[0] == "image_damaged"
    for value in (0, 200):
        np.full(decode_image(data).shape, value, np.uint8)
        assert (decode_image(broken) == 128).all()


@pytest.mark.parametrize("form", ["CMYK", "YCCK"])
def test_the_lost_part_of_an_image_of_inks_is_told(form):
    inks = cv2.resize(np.random.default_rng(3).integers(0, 256, (12, 16, 4)).astype(np.uint8), (320, 240))
    data = saved(Image.fromarray(inks, "CMYK"), "JPEG", quality=90)
    if form == "YCCK":  # Adobe's segment ends with the number of the transform
        at = data.index(b"Adobe") + 11
        data = data[:at] + b"\2" + data[at + 1 :]
    assert told(data) == ("", "")
    start = data.index(b"\xff\xda")
    code, words = told(data[: start + (len(data) - start) // 2])
    assert code == "image_damaged"
    assert 35 <= int(words.split("the lower ")[1].split(" %")[0]) <= 65


@pytest.mark.parametrize("form", FORMS)
def test_a_file_too_short_for_its_size_is_refused_before_it_is_decoded(form):
    data = photograph(form)
    at = data.index(b"\xff\xc2" if form == "progressive" else b"\xff\xc0") + 5
    begun = time.monotonic()
    code, words = told(data[:at] + b"\x75\x30\x75\x30" + data[at + 4 :])
    assert code == "image_damaged" and words.endswith("cannot hold 30000 x 30000 pixels)")
    assert time.monotonic() - begun < 1


def test_large_images_of_one_colour_are_long_enough():
    for options in ({}, {"progressive": True}, {"optimize": True}, {"optimize": True, "progressive": True}):
        for mode in ("L", "RGB"):
            code, _ = told(saved(Image.new(mode, (800, 600), 0), "JPEG", quality=1, **options))
            assert code == "image_constant", (mode, options)


INTERVALS = [n % 8 for n in range(39)]


@pytest.mark.parametrize(
    ("markers", "lost"),
    [
        (INTERVALS, 0),
        (INTERVALS[:10] + INTERVALS[11:], 1 / 40),
        (INTERVALS[:10] + INTERVALS[12:], 2 / 40),
        (INTERVALS[:10] + [7] + INTERVALS[11:], 1 / 40),
        (INTERVALS[:10] + INTERVALS[13:], None),
        (INTERVALS[:10] + INTERVALS[18:], None),
        (INTERVALS + [7], None),
        ([], None),
    ],
)
def test_missing_restart_markers_shift_the_rest_of_an_image(markers, lost):
    assert lost_intervals(markers, 40) == lost


def test_a_hole_of_several_restart_intervals_is_refused():
    data = photograph("restarting")
    code, _ = told(hole(data, 0.3, 0.3 + 4096 / len(data)))
    assert code == "image_damaged"


def test_an_image_that_ends_in_grey_of_its_own_is_whole():
    image = np.full((160, 160, 3), 128, np.uint8)
    image[:80] = np.random.default_rng(0).integers(0, 256, (80, 160, 3))
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90)
    assert told(file.getvalue()) == ("", "")
    assert told(file.getvalue()[:-2])[0] == "jpeg_without_end"
