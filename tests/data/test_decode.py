from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from kubeyolo.data import tiff
from kubeyolo.data.decode import decode_file, decode_image, turned
from kubeyolo.data.headers import ImageFault, read_file_header, read_header
from tests.data.image_files import bmp_with_alpha, saved, smooth_image, stored_turned, tiff_file

RGB = smooth_image(37, 23)
GREY = cv2.cvtColor(RGB, cv2.COLOR_RGB2GRAY)
GREY3 = np.repeat(GREY[:, :, None], 3, axis=2)
ALPHA = np.tile(np.linspace(0, 255, 37).astype(np.uint8), (23, 1))
OVER_GREY = np.round((RGB * (ALPHA[:, :, None] / 255.0) + 114 * (1 - ALPHA[:, :, None] / 255.0)) + 1e-9).astype(
    np.uint8
)
EXACT = {"PNG": {}, "WEBP": {"lossless": True, "exact": True}, "TIFF": {}, "BMP": {}}


def notes_of(data, **options):
    return {note.code: note.words for note in decode_file(data, **options).notes}


def fault_of(data, **options):
    with pytest.raises(ImageFault) as caught:
        decode_file(data, **options)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG", "JPEG in TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_every_format_is_shown_upright(kind, orientation):
    stored = stored_turned(RGB, orientation)
    options = EXACT.get(kind, {"quality": 95, "subsampling": 0})
    if kind == "JPEG in TIFF":
        kind, options = "TIFF", {"compression": "jpeg", "quality": 95}
    data = saved(stored, kind, orientation, **options)
    header = read_header(data)
    assert (header.width, header.height) == (stored.shape[1], stored.shape[0])
    assert header.orientation == orientation
    upright = decode_file(data).pixels
    assert upright.shape == RGB.shape
    assert np.abs(upright.astype(int) - RGB).max() <= (0 if options in EXACT.values() else 16)
    np.testing.assert_array_equal(decode_image(data, orientation), upright)
    np.testing.assert_array_equal(turned(decode_image(data), orientation), upright)
    assert ("orientation" in notes_of(data)) == (orientation != 1)


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(RGB, "PNG", exif=exif.tobytes())
    assert read_header(data).orientation == 1
    np.testing.assert_array_equal(decode_file(data).pixels, RGB)


@pytest.mark.parametrize("kind", EXACT)
def test_eight_bit_images_keep_their_values(kind):
    for image, expected in ((RGB, RGB), (GREY, GREY3)):
        data = saved(image, kind, **EXACT[kind])
        decoded = decode_file(data)
        np.testing.assert_array_equal(decoded.pixels, expected)
        np.testing.assert_array_equal(decode_image(data), expected)
        assert decoded.notes == ()
        assert decoded.pixels.dtype == np.uint8 and decoded.pixels.flags.c_contiguous


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_palettes_and_single_bits_are_decoded(kind):
    for colors in (2, 16, 200):
        palette = Image.fromarray(RGB).quantize(colors)
        np.testing.assert_array_equal(decode_file(saved(palette, kind)).pixels, np.asarray(palette.convert("RGB")))
    bilevel = Image.fromarray(GREY).convert("1")
    expected = np.repeat(np.asarray(bilevel)[:, :, None] * np.uint8(255), 3, axis=2)
    np.testing.assert_array_equal(decode_file(saved(bilevel, kind)).pixels, expected)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "group4"])
def test_compressed_tiffs_are_decoded(compression):
    image = Image.fromarray(GREY).convert("1") if compression == "group4" else Image.fromarray(RGB)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_file(saved(image, "TIFF", compression=compression)).pixels, expected)


def test_jpegs_are_decoded_as_opencv_does(shared):
    paths = sorted((shared / "data/coco_cc/val").glob("*.jpg"))[:12]
    files = [path.read_bytes() for path in paths]
    files += [cv2.imencode(".jpg", RGB, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes(), saved(GREY, "JPEG")]
    files += [saved(RGB, "JPEG", subsampling=sampling) for sampling in (0, 1, 2)]
    for data in files:
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        np.testing.assert_array_equal(decode_image(data), expected)
        np.testing.assert_array_equal(decode_file(data).pixels, expected)


def transparent_files():
    rgba = np.dstack([RGB, ALPHA])
    bgra16 = np.dstack([RGB[:, :, ::-1], ALPHA]).astype(np.uint16) * 257
    associated = np.round(RGB * (ALPHA[:, :, None] / 255.0)).astype(np.uint8)
    return {
        "PNG": saved(rgba, "PNG"),
        "PNG of 16 bits": cv2.imencode(".png", bgra16)[1].tobytes(),
        "WebP": saved(rgba, "WEBP", lossless=True, exact=True),
        "TIFF": tiff_file(rgba, photometric=2, extra=[2]),
        "TIFF of 16 bits": tiff_file(rgba.astype(np.uint16) * 257, photometric=2, extra=[2], order=">"),
        "TIFF, associated": tiff_file(np.dstack([associated, ALPHA]), photometric=2, extra=[1]),
        "TIFF in planes": tiff_file(rgba, photometric=2, extra=[2], planar=2),
        "BMP": bmp_with_alpha(rgba),
    }


@pytest.mark.parametrize("kind", transparent_files())
def test_transparency_is_laid_over_the_grey_of_the_letterbox(kind):
    data = transparent_files()[kind]
    decoded = decode_file(data)
    assert np.abs(decoded.pixels.astype(int) - OVER_GREY).max() <= 1
    np.testing.assert_array_equal(decoded.pixels[:, 0], 114)
    assert notes_of(data)["transparency"] == "97.3 % of the pixels are not opaque"
    np.testing.assert_array_equal(decode_image(data), decoded.pixels)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_an_alpha_channel_that_is_opaque_is_no_finding(kind):
    data = saved(np.dstack([RGB, np.full_like(ALPHA, 255)]), kind, **EXACT[kind])
    assert decode_file(data).notes == ()
    np.testing.assert_array_equal(decode_file(data).pixels, RGB)


def test_the_fourth_byte_of_a_bmp_without_an_alpha_mask_means_nothing():
    for alpha in (np.zeros_like(ALPHA), ALPHA):
        data = cv2.imencode(".bmp", np.dstack([RGB[:, :, ::-1], alpha]))[1].tobytes()
        np.testing.assert_array_equal(decode_file(data).pixels, RGB)
        assert decode_file(data).notes == ()
    unused = bmp_with_alpha(np.dstack([RGB, np.zeros_like(ALPHA)]))
    np.testing.assert_array_equal(decode_file(unused).pixels, RGB)


def test_transparent_colours_of_png_are_laid_over_grey():
    palette = Image.fromarray(RGB).quantize(8)
    chosen = np.asarray(palette) == 3
    for data, clear in (
        (saved(palette, "PNG", transparency=3), chosen),
        (saved(RGB, "PNG", transparency=tuple(RGB[4, 5].tolist())), (RGB[4, 5] == RGB).all(axis=2)),
        (saved(GREY, "PNG", transparency=int(GREY[4, 5])), GREY[4, 5] == GREY),
    ):
        pixels = decode_file(data).pixels
        assert (pixels[clear] == 114).all() and not (pixels[~clear] == 114).all()
        assert "transparency" in notes_of(data)


def test_images_of_16_bits_are_scaled_from_their_whole_range_and_say_what_they_use():
    deep, part = GREY.astype(np.uint16) * 257, GREY.astype(np.uint16) * 16
    color = RGB.astype(np.uint16) * 257
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode_file(saved(deep, kind)).pixels, GREY3)
        least, largest = int(part.min()), int(part.max())
        words = f"values {least} to {largest} of 16 bits"
        assert notes_of(saved(part, kind))["deep_samples"] == f"{words}, less than a quarter of their range"
        np.testing.assert_array_equal(decode_file(saved(part, kind), levels=(0, 255 * 16)).pixels, GREY3)
        assert "deep_samples" not in notes_of(saved(part, kind), levels=(0, 4095))
    for data in (cv2.imencode(".png", color[:, :, ::-1])[1].tobytes(), tiff_file(color, photometric=2)):
        np.testing.assert_array_equal(decode_file(data).pixels, RGB)
        assert notes_of(data)["deep_samples"] == f"values {color.min()} to {color.max()} of 16 bits"


@pytest.mark.parametrize("extension", [".png", ".tiff"])
@pytest.mark.parametrize("shape", [(23, 37), (23, 37, 3)])
def test_images_of_16_bits_are_decoded_as_opencv_does(extension, shape):
    deep = np.random.default_rng(0).integers(0, 65536, shape).astype(np.uint16)
    data = cv2.imencode(extension, deep)[1].tobytes()
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    np.testing.assert_array_equal(decode_image(data), expected)


def test_levels_clip_and_leave_images_of_8_bits_alone():
    deep = saved(GREY.astype(np.uint16) * 10, "PNG")
    expected = np.clip((GREY * 10.0 - 500) * 255 / 1000, 0, 255).round().astype(np.uint8)
    np.testing.assert_array_equal(decode_file(deep, levels=(500, 1500)).pixels[:, :, 0], expected)
    np.testing.assert_array_equal(decode_image(deep, levels=(500, 1500))[:, :, 0], expected)
    np.testing.assert_array_equal(decode_file(saved(RGB, "PNG"), levels=(50, 60)).pixels, RGB)


def packed_twelve(numbers):
    bits = (numbers[:, :, None] >> np.arange(11, -1, -1)) & 1
    return np.packbits(bits.reshape(len(numbers), -1).astype(np.uint8), axis=1).tobytes()


def test_packed_bits_of_tiff_are_decoded():
    twelve = (GREY.astype(np.uint16) << 4)[:, :, None]
    data = tiff_file(twelve, bits=12, packed=packed_twelve(twelve[:, :, 0]))
    np.testing.assert_array_equal(decode_file(data).pixels, GREY3)
    four = (GREY >> 4)[:, :36, None]
    nibbles = (four[:, ::2, 0] << 4 | four[:, 1::2, 0]).astype(np.uint8)
    data = tiff_file(four, bits=4, packed=nibbles.tobytes())
    np.testing.assert_array_equal(decode_file(data).pixels[:, :, 0], four[:, :, 0] * 17)


@pytest.mark.parametrize("order", ["<", ">"])
def test_floats_and_large_integers_are_scaled_where_their_range_tells_how(order):
    unit, bytes_ = (GREY / 255).astype(np.float32)[:, :, None], GREY.astype(np.float64)[:, :, None]
    whole = GREY.astype(np.int32)[:, :, None]
    for samples in (unit, unit.astype(np.float16), bytes_, whole):
        pixels = decode_file(tiff_file(samples, order=order)).pixels
        assert np.abs(pixels.astype(int) - GREY3).max() <= 1
    kelvin = tiff_file((280 + GREY / 10).astype(np.float32)[:, :, None], order=order)
    assert fault_of(kelvin).startswith(f"has values {280 + GREY.min() / 10:g} to {280 + GREY.max() / 10:g} of 32-bit ")
    assert fault_of(kelvin).endswith("set data.levels=[least, largest]")
    np.testing.assert_array_equal(decode_file(kelvin, levels=(280, 305.5)).pixels, GREY3)
    counts = tiff_file(whole.astype(np.uint32) * 1000, order=order)
    assert "values" in fault_of(counts)
    np.testing.assert_array_equal(decode_file(counts, levels=(0, 255000)).pixels, GREY3)


def test_values_that_are_not_finite_are_black():
    samples = (GREY / 255).astype(np.float32)[:, :, None]
    samples[0, 0], samples[0, 1] = np.nan, np.inf
    pixels = decode_file(tiff_file(samples)).pixels
    assert pixels[0, 0].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(pixels[1:], GREY3[1:])


def test_predictors_of_tiff_are_undone():
    differences = np.diff(RGB.astype(np.int16), axis=1, prepend=0).astype(np.uint8)
    data = tiff_file(differences, photometric=2, tags=[(317, 2)], deflate=True)
    np.testing.assert_array_equal(decode_file(data).pixels, RGB)
    wide = RGB.astype(np.uint16) * 257
    differences = np.diff(wide.astype(np.int32), axis=1, prepend=0).astype(np.uint16)
    data = tiff_file(differences, photometric=2, tags=[(317, 2)], deflate=True, order=">")
    np.testing.assert_array_equal(decode_file(data).pixels, RGB)
    unit = (GREY / 255).astype(">f4")
    planes = unit.view(np.uint8).reshape(23, 37, 4).transpose(0, 2, 1).reshape(23, -1)
    predicted = np.diff(planes.astype(np.int16), axis=1, prepend=0).astype(np.uint8)
    data = tiff_file(unit[:, :, None].astype("<f4"), packed=predicted.tobytes(), tags=[(317, 3)], deflate=True)
    np.testing.assert_array_equal(decode_file(data).pixels, GREY3)


@pytest.mark.parametrize("planar", [1, 2])
def test_the_first_three_of_many_bands_are_taken(planar):
    bands = np.dstack([RGB, GREY, ~GREY])
    for photometric in (1, 2):
        data = tiff_file(bands, photometric=photometric, extra=[0, 0], planar=planar)
        np.testing.assert_array_equal(decode_file(data).pixels, RGB)
        assert notes_of(data)["more_bands"] == "5 bands"


def test_white_is_zero_is_turned_around():
    np.testing.assert_array_equal(decode_file(tiff_file(~GREY[:, :, None], photometric=0)).pixels, GREY3)


def test_inks_become_light():
    cmyk = Image.fromarray(RGB).convert("CMYK")
    np.testing.assert_array_equal(decode_file(saved(cmyk, "TIFF")).pixels, RGB)
    adobe = saved(cmyk, "JPEG", quality=98, subsampling=0)
    assert np.abs(decode_file(adobe).pixels.astype(int) - RGB).mean() < 3
    start = adobe.index(b"Adobe") - 4
    plain = adobe[:start] + adobe[start + 2 + int.from_bytes(adobe[start + 2 : start + 4], "big") :]
    assert np.abs(decode_file(plain).pixels.astype(int) - RGB).mean() > 40  # without Adobe's marker inks are inks


def test_the_first_of_many_pages_is_taken():
    others = [Image.fromarray(np.ascontiguousarray(RGB[::-1])), Image.fromarray(np.ascontiguousarray(RGB[:, ::-1]))]
    for kind in ("TIFF", "PNG", "WEBP"):
        data = saved(RGB, kind, save_all=True, append_images=others, **EXACT[kind])
        np.testing.assert_array_equal(decode_file(data).pixels, RGB)
        assert notes_of(data)["more_pages"] == "page 1 of 3"
    assert notes_of(saved(RGB, "MPO", save_all=True, append_images=others[:1]))["more_pages"] == "page 1 of 2"
    small = [Image.fromarray(smooth_image(12, 8))]
    assert "more_pages" not in notes_of(saved(RGB, "MPO", save_all=True, append_images=small))


def test_images_that_show_little_are_noted():
    assert notes_of(saved(RGB // 20, "PNG"))["image_dark"].startswith("99.9 % of the values are at most 1")
    few = np.zeros((200, 300, 3), np.uint8)
    few[:, :30] = 200
    assert notes_of(saved(few, "PNG")) == {}
    assert notes_of(saved(Image.new("RGB", (50, 40), (3, 4, 5)), "PNG")) == {
        "image_constant": "all pixels are (3, 4, 5)"
    }
    assert notes_of(saved(np.ascontiguousarray(RGB[:9]), "PNG")) == {"image_tiny": "37 x 9 pixels"}


OTHERS = {
    "GIF": (lambda: saved(RGB, "GIF"), "is a GIF image"),
    "AVIF": (lambda: saved(RGB, "AVIF"), "is an AVIF image"),
    "TGA": (lambda: saved(RGB, "TGA"), "is a TGA image"),
    "old TGA": (lambda: saved(RGB, "TGA")[:-26], "is a TGA image"),
    "JPEG 2000": (lambda: saved(RGB, "JPEG2000"), "is a JPEG 2000 image"),
    "PNM": (lambda: saved(RGB, "PPM"), "is a PNM image"),
    "HEIC": (lambda: b"\0\0\0\x18ftypheic" + bytes(40), "is a HEIC image"),
    "HDR": (lambda: b"#?RADIANCE\n" + bytes(40), "is a Radiance HDR image"),
    "EXR": (lambda: b"v/1\x01" + bytes(40), "is an OpenEXR image"),
    "icon": (lambda: saved(RGB, "ICO"), "is an icon (ICO)"),
    "empty": (lambda: b"", "is empty (zero bytes)"),
    "zeros": (lambda: bytes(70), "is not an image, but 70 zero bytes"),
    "text": (lambda: b"hello\n", "is not an image, but text ("),
    "page": (lambda: b"<html>404</html>", "is a web page"),
    "git-lfs": (lambda: b"version https://git-lfs.github.com/spec/v1\noid", "is a pointer of git-lfs"),
    "PDF": (lambda: b"%PDF-1.7\n", "is a PDF document"),
    "letters BM": (lambda: b"BM is not only a bitmap, as one sees", "is not an image, but text ("),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files_are_named(kind):
    make, words = OTHERS[kind]
    found = fault_of(make())
    assert found.startswith(words)
    assert found.endswith("; JPEG, PNG, BMP, WebP and TIFF are supported")


def test_images_that_are_too_large_are_named_with_their_size_before_they_are_decoded():
    def grey_png(width, height):
        file = bytearray(saved(Image.new("L", (8, 8)), "PNG"))
        file[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        return bytes(file)

    assert fault_of(grey_png(40000, 30000)).startswith(
        "has 40000 x 30000 pixels; at most 2^30 pixels and 2^20 pixels per"
    )
    assert fault_of(grey_png(1100000, 4)).startswith("has 1100000 x 4 pixels; ")
    assert fault_of(grey_png(0, 4)) == "is a damaged PNG (its size is 0 x 4)"
    assert fault_of(grey_png(2**30, 1)).startswith(f"has {2**30} x 1 pixels")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: tiff_file(GREY[:, :, None], tags=[(259, 34712)]), "is a TIFF with JPEG 2000 compression"),
        (lambda: tiff_file(RGB, photometric=32845), "is a TIFF with unusual colours"),
        (lambda: tiff_file(RGB, photometric=2, tags=[(50706, 1)]), "is a camera raw file"),
        (lambda: saved(RGB, "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"), "is a JPEG of 12 bits"),
        (lambda: saved(RGB, "JPEG").replace(b"\xff\xc0", b"\xff\xc3"), "is a lossless JPEG of 8 bits"),
    ],
)
def test_kinds_of_a_format_that_are_not_read_are_named(make, words):
    assert fault_of(make()).startswith(words)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_files_that_are_cut_short_are_refused_without_a_word_on_the_terminal(kind, part, capfd):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else EXACT[kind]
    data = saved(noise, kind, **options)
    assert kind.lower() in fault_of(data[: int(len(data) * part)]).lower()
    for place in (0.4, 0.8):
        at = int(len(data) * place)
        if kind == "PNG":
            damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            assert fault_of(damaged) == "is a damaged PNG (wrong checksum in chunk 'IDAT')"
        if kind == "TIFF":
            fault_of(data[:at] + b"\xff" * 200 + data[at + 200 :])
    assert capfd.readouterr() == ("", "")


def test_a_png_that_is_cut_after_its_pixels_is_a_warning():
    data = saved(RGB, "PNG")
    assert notes_of(data[:-12])["image_warning"] == "truncated after its pixels (no IEND chunk)"
    np.testing.assert_array_equal(decode_file(data[:-12]).pixels, RGB)


def test_a_png_with_a_broken_text_is_a_warning():
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Comment", "as it was")
    data = saved(RGB, "PNG", pnginfo=info).replace(b"as it was", b"as it is!")
    assert notes_of(data)["image_warning"] == "wrong checksum in chunk 'tEXt'"
    np.testing.assert_array_equal(decode_file(data).pixels, RGB)


def test_a_header_is_read_from_the_front_of_a_file(tmp_path):
    from kubeyolo.data.headers import Incomplete, read_file_header

    large = smooth_image(300, 200)
    thumbnail = saved(smooth_image(20, 10), "JPEG")
    jpeg = saved(large, "JPEG")
    padded = jpeg[:2] + (b"\xff\xe2" + (60000).to_bytes(2, "big") + bytes(59998)) * 3 + jpeg[2:]
    assert (read_header(jpeg[:1024]).width, read_header(jpeg[:1024]).height) == (300, 200)
    with pytest.raises(Incomplete):
        read_header(padded[:65536])
    for name, data in (
        ("padded.jpg", padded),
        ("late.tif", tiff_file(large, photometric=2)),
        ("a.webp", saved(large, "WEBP")),
    ):
        (tmp_path / name).write_bytes(data)
        header = read_file_header(tmp_path / name)
        assert (header.width, header.height) == (300, 200)
    exif = b"\xff\xe1" + (len(thumbnail) + 8).to_bytes(2, "big") + b"Exif\0\0" + thumbnail
    assert read_header(jpeg[:2] + exif + jpeg[2:]).width == 300


def test_formats_are_known_by_their_content():
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG")
    header = read_header(file.getvalue())
    assert (header.kind, header.bands, header.bits, header.alpha, header.is_float) == ("PNG", 3, 8, False, False)
    header = read_header(tiff_file((GREY / 255).astype(np.float32)[:, :, None]))
    assert (header.kind, header.bands, header.bits, header.is_float) == ("TIFF", 1, 32, True)


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_an_orientation_after_the_pixels_of_a_large_file_is_read(kind, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (200, 301, 3), np.uint8)
    data = saved(noise, kind, 6, lossless=True)
    if kind == "PNG":
        at = data.index(b"eXIf") - 4
        length = 12 + int.from_bytes(data[at : at + 4], "big")
        data = data[:at] + data[at + length : -12] + data[at : at + length] + data[-12:]
    assert len(data) > 2 * 65536
    path = tmp_path / "image"
    path.write_bytes(data)
    assert read_file_header(path) == read_header(data)
    assert read_header(data).orientation == 6
    path.write_bytes(saved(noise, kind, lossless=True))
    assert read_file_header(path).orientation == 1


@pytest.mark.parametrize("value", ["nan", "inf", "6"])
def test_an_orientation_written_as_a_float_is_taken_where_it_is_a_number(value):
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIfI", 8, 1, 0x112, 11, 1, float(value), 0)
    data = saved(smooth_image(60, 40), "JPEG", exif=exif)
    assert decode_file(data).pixels.shape == ((60, 40, 3) if value == "6" else (40, 60, 3))


def test_floats_a_rounding_beyond_black_and_white_are_cut():
    ramp = np.linspace(0, 1, 600, dtype=np.float64).reshape(20, 30, 1)
    for factor, shift in ((1.0000001, 0), (1, -1e-6), (255.0001, 0), (255, -0.001)):
        shown = decode_file(tiff_file((ramp * factor + shift).astype(np.float32))).pixels[:, :, 0]
        np.testing.assert_allclose(shown, ramp[:, :, 0] * 255, atol=0.6)
    for factor, shift in ((255.6, 0), (255, -0.6)):
        with pytest.raises(ImageFault, match="which values are black and white is unknown"):
            decode_file(tiff_file((ramp * factor + shift).astype(np.float32)))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("size", [3, 5])
def test_integers_of_three_and_five_bytes_are_read_in_the_order_of_the_file(order, size):
    values = np.random.default_rng(0).integers(0, 1 << (8 * size), (10, 12, 1), np.uint64)
    places = slice(0, size) if order == "<" else slice(8 - size, 8)
    packed = values.astype(f"{order}u8").view(np.uint8).reshape(-1, 8)[:, places].tobytes()
    data = tiff_file(values, order=order, bits=8 * size, packed=packed)
    np.testing.assert_array_equal(tiff.samples(data, tiff.first_page(data)), values)


@pytest.mark.parametrize("kind", [9, 11])
def test_places_of_strips_that_are_not_whole_numbers_are_damage(kind):
    data = tiff_file(np.zeros((10, 12, 1), np.uint8))
    at = data.index(struct.pack("<HHI", 273, 4, 1))
    value = struct.pack("<i", -9) if kind == 9 else struct.pack("<f", 8.0)
    assert fault_of(data[:at] + struct.pack("<HHI", 273, kind, 1) + value + data[at + 12 :]).startswith(
        "is a damaged TIFF"
    )


@pytest.mark.parametrize("compression", [5, 32773])
def test_tiles_too_large_for_their_bytes_are_refused_before_memory_is_taken(compression):
    data = tiff_file(np.zeros((10, 12, 1), np.uint8), tags=((259, compression), (322, 0x7FFFFFF0), (323, 0x7FFFFFF0)))
    data = data.replace(struct.pack("<HHII", 273, 4, 1, 0)[:8], struct.pack("<HHI", 324, 4, 1))
    data = data.replace(struct.pack("<HHI", 279, 4, 1), struct.pack("<HHI", 325, 4, 1))
    with pytest.raises(ImageFault, match="is a truncated TIFF"):
        decode_file(data)


def test_a_png_of_16_bits_that_unpacks_to_a_thousand_times_its_size_is_refused_before_it_does():
    data = saved(np.zeros((10, 12), np.uint16), "PNG")
    at, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    body = b"IDAT" + zlib.compress(bytes(1 << 27), 1)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    tracemalloc.start()
    with pytest.raises(ImageFault, match="is a damaged PNG"):
        decode_file(data[:at] + chunk + data[end:])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 26


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bytes(128) + b"DICM" + bytes(20), "is a DICOM image"),
        (b"data:image/jpeg;base64,/9j/4AAQ", "is an image as text"),
        (b"/9j/4AAQSkZJRgABAQ", "is an image as text"),
        (saved(smooth_image(60, 40), "JPEG").decode("latin-1").encode(), "changed as if it were text"),
        (saved(smooth_image(60, 40), "PNG").replace(b"\r\n", b"\n"), "changed as if it were text"),
        (b'{"error": "not\n found"}', 'is not an image, but text (\'{"error": "not found"}\')'),
        (b"MZ\x90\0" + bytes(100), "is not an image; "),
    ],
)
def test_what_became_of_an_image_on_its_way_is_named(data, words):
    with pytest.raises(ImageFault) as caught:
        decode_file(data)
    assert words in str(caught.value)
