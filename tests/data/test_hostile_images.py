"""Images that are made to harm: refused by their first bytes and their header, before a decoder sees them."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from kubeyolo.data.checks import check_image
from kubeyolo.data.decode import decode_file, decode_image, grey_values
from kubeyolo.data.headers import ImageFault, read_file_header, read_image_file
from tests.costs import measured


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int = 8, color: int = 2, more: bytes = b"", rows: bytes | None = None) -> bytes:
    """Return a PNG of zeros, with more chunks before its pixels."""
    bands = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    if rows is None:
        pack, row = zlib.compressobj(9), bytes(1 + (width * bits * bands + 7) // 8)
        rows = b"".join(pack.compress(row) for _ in range(height)) + pack.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def saved(kind: str, size: tuple[int, int] = (64, 64), **options: object) -> bytes:
    data = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(data, kind, **options)
    return data.getvalue()


def tiff(entries: list[tuple[int, int, int, int]], after: bytes = b"", following: int = 0) -> bytes:
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", following) + after


SIDES = [(256, 4, 1, 64), (257, 4, 1, 64), (258, 4, 1, 8), (259, 4, 1, 1), (262, 4, 1, 1)]


def jpeg_with_scans(count: int) -> bytes:
    data = saved("JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * count + b"\xff\xd9"


NOT_DECODED = {
    "JPEG 2000": (saved("JPEG2000"), "JPEG 2000"),
    "JPEG 2000 stream": (b"\xff\x4f\xff\x51" + bytes(200), "not an image"),
    "PNM": (saved("PPM"), "a PNM image"),
    "PFM": (b"PF\n8 8\n-1.0\n" + bytes(768), "a PNM image"),
    "HDR": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 8 +X 8\n" + bytes(256), "Radiance"),
    "EXR": (b"v/1\x01" + bytes(200), "OpenEXR"),
    "Sun raster": (struct.pack(">8I", 0x59A66A95, 8, 8, 24, 192, 1, 0, 0) + bytes(192), "not an image"),
    "GIF": (saved("GIF"), "a GIF image"),
    "zeros": (bytes(1000), "zero bytes"),
    "header of 2^31 pixels": (png(2**31 - 1, 2**31 - 1, rows=b"x"), "at most 2.30 pixels"),
    "bits": (png(20_000, 20_000, 1, 0), "would grow to 20000 x 20000 pixels"),
    "grey": (png(9_000, 9_000, 8, 0), "would grow to 9000 x 9000 pixels"),
    "JPEG of no bytes": (
        saved("JPEG").replace(struct.pack(">HH", 64, 64), struct.pack(">HH", 30_000, 30_000), 1),
        "cannot",
    ),
    "JPEG of many scans": (jpeg_with_scans(200), "is a JPEG of 2.. scans"),
    "BMP": (
        b"BM" + struct.pack("<IHHIIiiHHI", 100, 0, 0, 54, 40, 30_000, 30_000, 1, 24, 0) + bytes(60),
        "grow|truncated",
    ),
}


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the decoders that were called."""
    called: list[str] = []
    for owner, name in ((Image, "open"), (cv2, "imdecode"), (simplejpeg, "decode_jpeg")):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, _o=original, _n=name, **k: (called.append(_n), _o(*a, **k))[1])
    return called


@pytest.mark.parametrize(("data", "words"), NOT_DECODED.values(), ids=NOT_DECODED.keys())
def test_no_decoder_sees_other_formats_and_bombs(data: bytes, words: str, decoders: list[str]) -> None:
    for decode in (decode_file, decode_image, grey_values):
        with pytest.raises(ImageFault, match=words):
            decode(data)
    assert check_image(data, None).fault_code == "image_damaged"
    assert decoders == []


def test_an_image_of_another_size_is_not_decoded(decoders: list[str]) -> None:
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP"):
        data = saved(kind)
        checked = check_image(data, (64, 48))
        assert (checked.fault_code, checked.width, checked.height) == ("size_differs", 64, 64)
        with pytest.raises(ImageFault, match="has 64 x 64 pixels instead of 64 x 48"):
            decode_image(data, size=(64, 48))
    assert decoders == []
    assert decode_image(saved("JPEG"), size=(64, 64)).shape == (64, 64, 3)


def test_blank_images_of_usual_sizes_are_read() -> None:
    assert decode_file(png(2000, 2500, 1, 0)).pixels.shape == (2500, 2000, 3)


TWO_SIZES = {
    "PNG": png(64, 64, more=chunk(b"IHDR", struct.pack(">IIBBBBB", 6000, 6000, 8, 2, 0, 0, 0))),
    "TIFF": tiff(
        [*SIDES[:3], (259, 4, 1, 7), (262, 4, 1, 6), (273, 4, 1, 8), (278, 4, 1, 64), (279, 4, 1, 8), (256, 4, 1, 9000)]
    ),
    "WebP": saved("WEBP")[:12]
    + b"VP8X"
    + struct.pack("<I", 10)
    + b"\0\0\0\0"
    + b"\x3f\0\0" * 2
    + saved("WEBP", (900, 9))[12:],
}


@pytest.mark.parametrize("data", TWO_SIZES.values(), ids=TWO_SIZES.keys())
def test_a_second_size_is_not_believed(data: bytes) -> None:
    try:
        assert decode_file(data).pixels.shape == (64, 64, 3)
    except ImageFault as error:
        assert "damaged" in str(error) or "truncated" in str(error)


SLOW = {
    "EXIF of shared values": b"\xff\xd8\xff\xe1\xff\xf8Exif\0\0"
    + tiff([(i, 4, 8_000, 8) for i in range(3_000)]).ljust(0xFFF0, b"\0")[:0xFFF0]
    + saved("JPEG")[2:],
    "tags of shared values": tiff([*SIDES, *((1000 + i, 1, 500_000, 8) for i in range(10_000))], bytes(500_000)),
    "directories that overlap": b"II*\0" + struct.pack("<I", 8) + b"\xfe\xff" * 100_000,
    "one marker": b"\xff\xd8" + b"\xff" * 1_000_000,
    "stuffed bytes": b"\xff\xd8\xff\xe0" + b"\xff\x00" * 1_000_000,
    "tiles of gigabytes": tiff(
        [*SIDES[:3], (259, 4, 1, 8), (262, 4, 1, 1), (322, 4, 1, 1 << 31), (323, 4, 1, 1 << 31), (324, 4, 1, 150)]
        + [(325, 4, 1, 900)],
        zlib.compress(bytes(1 << 20)),
    ),
    "pictures without end": b"\xff\xd8\xff\xe2"
    + struct.pack(">H", 0xFFF0)
    + b"MPF\0"
    + tiff([(0xB001, 4, 1, 4000), (0xB002, 7, 64_000, 50)]).ljust(0xFFEA, b"\0")
    + saved("JPEG")[2:],
}


@pytest.mark.parametrize("data", SLOW.values(), ids=SLOW.keys())
def test_headers_that_repeat_themselves_take_neither_time_nor_memory(data: bytes) -> None:
    with measured() as costs:
        check_image(data, None)
    assert costs.seconds < 3
    assert costs.megabytes < 200


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_damaged_files_print_nothing_and_raise_one_kind_of_error(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = saved(kind)
    random = np.random.default_rng(7)
    outcomes = set()
    for number in range(60):
        broken = bytearray(data)
        for at in random.integers(0, min(len(data), 400 if number % 2 else len(data)), 6):
            broken[at] = random.integers(256)
        for decode in (decode_file, grey_values):
            try:
                decode(bytes(broken[: len(broken) if number % 3 else len(broken) // 2]))
                outcomes.add("decoded")
            except ImageFault:
                outcomes.add("refused")
    assert "refused" in outcomes
    assert capfd.readouterr() == ("", "")


def test_warnings_of_libtiff_are_notes() -> None:
    data = io.BytesIO()
    Image.effect_noise((64, 64), 60).convert("1").save(data, "TIFF", compression="group4")
    assert decode_file(data.getvalue()).notes == ()
    broken = bytearray(data.getvalue())
    broken[60:64] = b"\xff\x00\xff\x00"
    notes = decode_file(bytes(broken)).notes
    assert [note.code for note in notes] == ["image_warning"]
    assert notes[0].words.startswith("libtiff: '")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        for read in (read_image_file, read_file_header):
            with pytest.raises(ImageFault, match="is not a regular file"):
                read(tmp_path / name)
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(ImageFault, match="zero bytes"):
        read_image_file(tmp_path / "sparse.png")
    with (tmp_path / "huge.png").open("wb") as file:
        file.write(png(64, 64))
        file.truncate(1 << 40)
    with pytest.raises(ImageFault, match="at most 4294967296 are supported"):
        read_image_file(tmp_path / "huge.png")
