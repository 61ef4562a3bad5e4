from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from kubeyolo.data.checks import check_images, read_images
from kubeyolo.data.coco import read_coco
from kubeyolo.data.decode import container_fault, decode_image, image_fault
from kubeyolo.errors import InputError
from tests.data.small_dataset import encoded_image


def check(folder, **options):
    annotations = folder / "annotations/train.json"
    index = read_coco(annotations, folder / "train")[0]
    check_images(index, folder / "train", annotations, **options)


def with_exif(jpeg: bytes, orientation: int, thumbnail: bytes = b"") -> bytes:
    """Return a JPEG with an EXIF segment of one tag, and any bytes after it."""
    tiff = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, orientation, 0)
    payload = b"Exif\0\0" + tiff + thumbnail
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


def test_good_images_pass_and_progress_is_told(small_folder):
    told = []
    check(small_folder, progress=lambda *event: told.append(event))
    assert told == [("checking images of train", n, 3) for n in (1, 2, 3)]


def test_real_images_pass(shared):
    folder = shared / "data/coco_cc"
    annotations = folder / "annotations/val.json"
    index = read_coco(annotations, folder / "val")[0]
    images = list(read_images(index, folder / "val", annotations))
    assert len(images) == 57
    assert sum(len(image.data) for image in images) == sum(p.stat().st_size for p in (folder / "val").iterdir())


BAD_FILES = {
    "missing": (None, "is missing"),
    "zero bytes": (b"", "is empty (zero bytes)"),
    "text": (b"<html>404</html>", "is not an image"),
    "truncated": (encoded_image(32, 48, 2)[:-500], "is a truncated JPEG (no end-of-image marker)"),
    "truncated by one byte": (encoded_image(32, 48, 2)[:-1], "is a truncated JPEG"),
    "header only": (encoded_image(32, 48, 2)[:20], "is a truncated JPEG"),
    "truncated after a thumbnail": (
        with_exif(encoded_image(32, 48, 2), 1, encoded_image(8, 8, 3))[:-500],
        "is a truncated JPEG",
    ),
    "truncated PNG": (encoded_image(32, 48, 2, ".png")[:-20], "is a truncated PNG (no IEND chunk)"),
    "truncated WebP": (encoded_image(32, 48, 2, ".webp")[:-20], "is a truncated WebP"),
    "truncated BMP": (encoded_image(32, 48, 2, ".bmp")[:-20], "is a truncated BMP"),
    "other size": (encoded_image(32, 47, 2), "has 32 x 47 pixels where the annotations say 32 x 48"),
    "turned": (encoded_image(48, 32, 2), "has 48 x 32 pixels where the annotations say 32 x 48; EXIF orientation"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_image_is_one_clear_line(small_folder, case):
    data, expected = BAD_FILES[case]
    path = small_folder / "train/002.jpg"
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        check(small_folder)
    message = str(caught.value)
    assert message.startswith(f"{path} (image 2 of train.json) {expected}")
    assert message.endswith("; replace the file, or remove it from the annotations")
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_other_bad_images_are_counted(small_folder):
    for name in ("001", "003"):
        (small_folder / f"train/{name}.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"001\.jpg \(image 1 of train\.json\) is empty \(zero bytes\) \(and 1 more\)"):
        check(small_folder, threads=3)


def test_damaged_png_is_found_by_its_checksum():
    data = bytearray(encoded_image(32, 48, 1, ".png"))
    data[len(data) // 2] ^= 1
    assert "is a damaged PNG (wrong checksum in chunk 'IDAT')" in image_fault(bytes(data), 32, 48)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
def test_whole_files_of_every_kind_pass_even_with_bytes_after_them(extension):
    data = encoded_image(31, 47, 5, extension)
    assert image_fault(data, 31, 47) is None
    assert image_fault(data + b"\0" * 100, 31, 47) is None


def test_progressive_and_restarting_jpegs_are_whole():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    for option in (cv2.IMWRITE_JPEG_PROGRESSIVE, cv2.IMWRITE_JPEG_RST_INTERVAL):
        data = cv2.imencode(".jpg", pixels, [option, 1])[1].tobytes()
        assert image_fault(data, 80, 64) is None
        for cut in range(1, len(data), 97):
            assert container_fault(data[:cut] if cut > 3 else data[:4]) is not None


def test_exif_orientation_is_ignored():
    data = encoded_image(32, 48, 1)
    turned = with_exif(data, orientation=6)
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (32, 48, 3)
    assert image_fault(turned, 32, 48) is None
    np.testing.assert_array_equal(decode_image(turned), decode_image(data))


def test_images_are_decoded_to_rgb():
    pixels = np.zeros((4, 5, 3), np.uint8)
    pixels[:, :, 2] = 200  # red in OpenCV's order
    image = decode_image(cv2.imencode(".png", pixels)[1].tobytes())
    assert image.dtype == np.uint8
    assert image[0, 0].tolist() == [200, 0, 0]


def test_grey_images_get_three_channels():
    image = decode_image(cv2.imencode(".png", np.full((4, 5), 7, np.uint8))[1].tobytes())
    assert image.shape == (4, 5, 3)


def test_png_of_absurd_size_is_no_image_rather_than_a_crash():
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2**30, 2**30, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    assert image_fault(data, 2**30, 2**30) == "is not an image (JPEG, PNG, BMP, WebP or TIFF)"
