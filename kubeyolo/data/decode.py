"""Decodes image files to 8-bit RGB pixels, whatever their format, bits, bands and transparency."""

from __future__ import annotations

import io
import logging
import struct
import warnings
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image as Pillow

from kubeyolo.arrays import AnyArray, Pixels
from kubeyolo.data import png, tiff
from kubeyolo.data.headers import FREE_BYTES, Header, ImageFault, check_growth, check_scans, read_header
from kubeyolo.data.jpeg import check_length, decode_jpeg, light_of_inks, look_at_jpeg, small_grey_jpeg
from kubeyolo.data.letterbox import FILL

Levels = tuple[float, float]
"""The values that become 0 and 255, for samples of more than 8 bits."""

DARK = 16
"""An image is nearly black if 99.9 % of its values are smaller."""

_SLACK = 0.49
"""Grey levels by which floats may be below black or above white."""

TINY = 16
"""An image with a side of fewer pixels is a finding."""

# The size in the header is checked before Pillow opens a file.
Pillow.MAX_IMAGE_PIXELS = None
# Only 16-bit PNG files that were checked reach the decoders of OpenCV, whose log would be printed to the terminal.
cv2.setLogLevel(0)
# Faults that Pillow warns of are noted in this module too, or Pillow raises them later.
logging.getLogger("PIL").addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True)
class Note:
    """A note on a decoded image.

    Attributes:
        code: A key of :data:`kubeyolo.data.finding_kinds.KINDS`.
        words: The details: "page 1 of 3", "values 0 to 4095 of 16 bits".
    """

    code: str
    words: str


@dataclass(frozen=True)
class Decoded:
    """An image: pixels (H, W, 3) uint8 RGB, and notes on it."""

    pixels: Pixels
    notes: tuple[Note, ...]


def decode_file(data: bytes, levels: Levels | None = None) -> Decoded:
    """Decode an image file as a viewer shows it, with its EXIF orientation applied.

    Args:
        data: The content of the file.
        levels: The values that become 0 and 255, for samples of more than 8 bits.

    Raises:
        ImageFault: The format is not supported, a large part of the image cannot be decoded, or its samples cannot be
            scaled to 8 bits without ``levels``.
    """
    header = checked_header(data)
    pixels, notes = decode_stored(data, header, levels)
    if header.orientation != 1:
        notes.append(Note("orientation", f"EXIF orientation {header.orientation}, applied"))
    return Decoded(turned(pixels, header.orientation), tuple(notes))


def checked_header(data: bytes) -> Header:
    """Return the header of an image file, after refusing files that are too expensive to decode.

    Args:
        data: The whole content of the file.

    Raises:
        ImageFault: The format is not supported, or decoding would take much more memory or time than the size of the
            file justifies.
    """
    header = read_header(data)
    if header.kind == "JPEG":
        if 3 * header.width * header.height > FREE_BYTES:
            check_length(data, header)
        check_scans(data, header)
    check_growth(header, len(data))
    return header


def decode_image(
    data: bytes, orientation: int = 1, levels: Levels | None = None, size: tuple[int, int] | None = None
) -> Pixels:
    """Decode an image file, checked before, to uint8 RGB (H, W, 3), and rotate or mirror it by ``orientation``.

    Args:
        data: The content of the file.
        orientation: How to rotate or mirror the stored pixels, 1 to 8 as in EXIF; 1 does not change them.
        levels: As :func:`decode_file`.
        size: Width and height that the image must have after its rotation; None for any size.

    Raises:
        ImageFault: As :func:`decode_file`; for a damaged JPEG only if nothing can be decoded. The image has a different
            size; then its pixels are not decoded.
    """
    header = checked_header(data)
    found = header.size(orientation)
    if size is not None and found != size:
        raise ImageFault(f"has {found[0]} x {found[1]} pixels instead of {size[0]} x {size[1]}")
    pixels = decode_jpeg(data, header) if header.kind == "JPEG" else _decode(data, header, levels, [], check=False)
    return turned(_of_size(pixels, header), orientation)


def grey_values(data: bytes) -> Pixels:
    """Return the grey values (h, w) of an image: of a JPEG at an eighth of its size, of other formats at full size.

    Raises:
        ImageFault: As :func:`decode_file`.
    """
    header = checked_header(data)
    if header.kind == "JPEG" and header.bands != 4:
        return small_grey_jpeg(data, header)
    return np.asarray(cv2.cvtColor(decode_image(data), cv2.COLOR_RGB2GRAY), np.uint8)


def decode_stored(data: bytes, header: Header, levels: Levels | None = None) -> tuple[Pixels, list[Note]]:
    """Decode an image without applying its orientation, and return notes on everything unusual about it.

    Raises:
        ImageFault: As :func:`decode_file`.
    """
    notes: list[Note] = []
    if header.kind == "JPEG":
        pixels, code, words = look_at_jpeg(data, header)
        if code:
            notes.append(Note(code, words))
    else:
        pixels = _decode(data, header, levels, notes, check=True)
    if header.pages > 1:
        notes.append(Note("more_pages", f"page 1 of {header.pages}"))
    notes += _looks(_of_size(pixels, header))
    return pixels, notes


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """Rotate or mirror pixels (H, W, 3) by an EXIF orientation (1 to 8); 5 to 8 exchange height and width."""
    if orientation == 1:
        return pixels
    if orientation in (2, 3, 4):
        result = cv2.flip(pixels, {2: 1, 3: -1, 4: 0}[orientation])
    elif orientation in (6, 8):
        result = cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE if orientation == 6 else cv2.ROTATE_90_COUNTERCLOCKWISE)
    else:
        result = cv2.transpose(pixels if orientation == 5 else cv2.flip(pixels, -1))
    return np.asarray(result, np.uint8)


def _of_size(pixels: Pixels, header: Header) -> Pixels:
    if pixels.shape != (header.height, header.width, 3):
        size = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise ImageFault(f"is a damaged {header.kind} (decoded {size}, header says {header.width} x {header.height})")
    return pixels


def _looks(pixels: Pixels) -> list[Note]:
    """Return notes on an image that is tiny, nearly black, or of a single colour."""
    notes = []
    height, width = pixels.shape[:2]
    if min(height, width) < TINY:
        notes.append(Note("image_tiny", f"{width} x {height} pixels"))
    # For nearly every image a few pixels are enough to see that it is neither dark nor of one colour.
    few = pixels[:: max(1, height // 16), :: max(1, width // 16)]
    if (few == few[0, 0]).all() and all((row == pixels[0, 0]).all() for row in pixels):
        notes.append(Note("image_constant", f"all pixels are {tuple(pixels[0, 0].tolist())}"))
    elif few.max() < 2 * DARK or np.count_nonzero(few >= DARK) < few.size // 10:
        bright = float(np.percentile(pixels, 99.9))
        if bright < DARK:
            notes.append(Note("image_dark", f"99.9 % of the values are at most {bright:.0f} of 255"))
    return notes


def _decode(data: bytes, header: Header, levels: Levels | None, notes: list[Note], check: bool) -> Pixels:
    """Decode a PNG, WebP, TIFF or BMP without applying its orientation, and add notes on it to ``notes``."""
    try:
        if header.kind == "PNG":
            return _decode_png(data, header, levels, notes, check)
        if header.kind == "WebP":
            if len(data) < 8 + struct.unpack_from("<I", data, 4)[0]:
                raise ImageFault("is a truncated WebP")
            return _by_pillow(data, "WEBP", header, notes)
        if header.kind == "TIFF":
            return _decode_tiff(data, header, levels, notes)
        return _decode_bmp(data, header, notes)
    except tiff.TiffFault as error:
        raise ImageFault(str(error)) from error
    except (ImageFault, MemoryError):
        raise
    except Exception as error:  # decoders raise errors of many kinds for damaged files
        raise ImageFault(f"is a damaged {header.kind} (its pixels cannot be decoded)") from error


def _by_pillow(data: bytes, kind: str, header: Header, notes: list[Note]) -> Pixels:
    """Decode 8-bit pixels; transparent pixels are blended over the grey of the letterbox."""
    with Pillow.open(io.BytesIO(data), formats=(kind,)) as image:
        _check_size(image, header)
        if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
            rgba = np.asarray(image.convert("RGBA"))
            return over_grey(rgba[:, :, :3], rgba[:, :, 3], False, notes)
        return np.array(image.convert("RGB"))


def _check_size(image: Pillow.Image, header: Header) -> None:
    """Refuse a file in which Pillow finds a size other than that in the checked header, before pixels are decoded."""
    if image.size != (header.width, header.height):
        raise ImageFault(
            f"is a damaged {header.kind} (it has two sizes, {header.width} x {header.height} and {image.width} x "
            f"{image.height})"
        )


def over_grey(rgb: Pixels, alpha: Pixels, is_associated: bool, notes: list[Note]) -> Pixels:
    """Blend an image over the grey of the letterbox.

    Args:
        rgb: (H, W, 3).
        alpha: (H, W), 255 for opaque.
        is_associated: Whether the colours are already multiplied by alpha.
        notes: Receives a note unless all pixels are opaque.
    """
    clear = ~alpha
    if not clear.any():
        return np.ascontiguousarray(rgb)
    part = 100 * np.count_nonzero(clear) / clear.size
    notes.append(Note("transparency", f"{part:.3g} % of the pixels are not opaque"))
    weight = np.full_like(alpha, 255) if is_associated else alpha
    blended = rgb.astype(np.uint32) * weight[:, :, None] + np.uint32(FILL) * clear[:, :, None].astype(np.uint32)
    return np.minimum((blended + 127) // 255, 255).astype(np.uint8)


def _decode_bmp(data: bytes, header: Header, notes: list[Note]) -> Pixels:
    stated, offset, size = struct.unpack_from("<I4xII", data, 2)
    compression = struct.unpack_from("<I", data, 30)[0] if size >= 40 else 0
    bits = struct.unpack_from("<H", data, 24 if size == 12 else 28)[0]
    is_packed = compression in (1, 2)
    needed = stated if is_packed else offset + (header.width * bits + 31) // 32 * 4 * header.height
    if len(data) < needed:
        raise ImageFault("is a truncated BMP")
    with Pillow.open(io.BytesIO(data), formats=("BMP",)) as image:
        _check_size(image, header)
        if header.alpha:
            rgba = np.asarray(image.convert("RGBA"))
            if rgba[:, :, 3].any():  # otherwise the program that wrote the file did not use the fourth byte
                return over_grey(rgba[:, :, :3], rgba[:, :, 3], False, notes)
        return np.array(image.convert("RGB"))


def _decode_png(data: bytes, header: Header, levels: Levels | None, notes: list[Note], check: bool) -> Pixels:
    is_deep = header.bits == 16
    fault = png.damage(data) if check or is_deep else ""
    if fault:
        notes.append(Note("image_warning", fault))
    if not is_deep:
        return _by_pillow(png.pixels_alone(data), "PNG", header, notes)
    deep = png.deep_samples(data, header)
    colors = deep[:, :, :3]
    shown = _three_bands(_to_eight_bits(colors, 16, levels, notes))
    if deep.shape[2] == 4:
        return over_grey(shown, (deep[:, :, 3] >> 8).astype(np.uint8), False, notes)
    key = png.color_key(data)
    if len(key) == colors.shape[2]:
        return over_grey(shown, np.where((colors == key).all(axis=2), 0, 255).astype(np.uint8), False, notes)
    return shown


def _three_bands(pixels: Pixels) -> Pixels:
    return np.asarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else np.ascontiguousarray(pixels), np.uint8)


def _decode_tiff(data: bytes, header: Header, levels: Levels | None, notes: list[Note]) -> Pixels:
    page = tiff.first_page(data)
    color = page.number(tiff.PHOTOMETRIC, tiff.BLACK_IS_ZERO)
    if 50706 in page.tags or data[8:10] == b"CR":
        raise ImageFault("is a camera raw file; develop it to JPEG, PNG or TIFF")
    if color > tiff.CIELAB:
        raise ImageFault(f"is a TIFF with unusual colours (photometric interpretation {color}); save it as RGB")
    if tiff.is_packed_by_others(page):
        tiff.check_strips(data, page)
        if page.bands > 4:
            raise ImageFault(f"is a TIFF of {page.bands} bands with a compression for photos; save it with LZW")
        with tiff.heard_libtiff() as texts:
            pixels = _by_pillow(_unturned(data, page), "TIFF", header, notes)
        notes += [Note("image_warning", f"libtiff: {text!r}") for text in texts]
        return pixels
    deep = tiff.samples(data, page)
    if color == tiff.PALETTE:
        colors = np.array(page.tags.get(tiff.COLORS, ()), np.uint16)
        if len(colors) != 3 << page.bits:
            raise ImageFault("is a damaged TIFF (its palette is missing)")
        by_number = (colors.reshape(3, -1).T >> (8 if colors.max() > 255 else 0)).astype(np.uint8)
        return by_number[deep[:, :, 0]]
    colored = {tiff.RGB: 3, tiff.CIELAB: 3, tiff.CMYK: 4}.get(color, 1)
    if deep.shape[2] < colored:
        raise ImageFault(f"is a damaged TIFF ({deep.shape[2]} bands)")
    extra = page.tags.get(tiff.EXTRA_SAMPLES, ())
    alpha = next((colored + i for i, kind in enumerate(extra) if kind in (1, 2)), 0)
    if colored == 1 and deep.shape[2] >= 3 and alpha != 1:  # bands of a multispectral camera
        colored = 3
    if deep.shape[2] > colored + bool(alpha):
        notes.append(Note("more_bands", f"{deep.shape[2]} bands"))
    eight = _to_eight_bits(deep[:, :, :colored], page.bits, levels, notes, rounds=color == tiff.RGB)
    rgb = _colored(eight, color)
    if not alpha or alpha >= deep.shape[2]:
        return rgb
    opacity = _alpha_to_eight_bits(deep[:, :, alpha], page)
    return over_grey(rgb, opacity, extra[alpha - colored] == 1, notes)


def _unturned(data: bytes, page: tiff.Directory) -> bytes:
    """Return a TIFF with orientation 1, because Pillow would apply the orientation."""
    if page.orientation == 1:
        return data
    short = struct.pack(page.order + "H", page.orientation)
    one = struct.pack(
        page.order + ("H" if data[page.orientation_offset : page.orientation_offset + 2] == short else "I"), 1
    )
    return data[: page.orientation_offset] + one + data[page.orientation_offset + len(one) :]


def _colored(eight: Pixels, color: int) -> Pixels:
    """Convert samples (H, W, 1, 3 or 4) to RGB by the photometric interpretation of their TIFF."""
    if color == tiff.WHITE_IS_ZERO:
        eight = ~eight
    if color == tiff.CMYK:
        return light_of_inks(~eight)
    if color == tiff.CIELAB:
        lab = np.concatenate([eight[:, :, :1] * (100 / 255), eight[:, :, 1:].view(np.int8)], axis=2)
        return (cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_Lab2RGB) * 255).round().astype(np.uint8)
    return _three_bands(eight)


def _alpha_to_eight_bits(alpha: AnyArray, page: tiff.Directory) -> Pixels:
    if alpha.dtype.kind == "f":
        return (np.nan_to_num(alpha).clip(0, 1) * 255).round().astype(np.uint8)
    return (alpha.astype(np.float64) * (255 / ((1 << page.bits) - 1))).clip(0, 255).round().astype(np.uint8)


def _to_eight_bits(deep: AnyArray, bits: int, levels: Levels | None, notes: list[Note], rounds: bool = False) -> Pixels:
    """Scale samples (H, W, bands) of any type to 0..255.

    Unsigned integers of up to 16 bits are scaled from the whole range of their type: the result is the upper 8 bits, or
    with ``rounds`` the nearest value, as libtiff does for colours. Floats within 0 to 1 are multiplied by 255. Other
    values are not scaled if all of them are within 0 to 255.

    Raises:
        ImageFault: Values are below 0 or above 255, and ``levels`` is None.
    """
    is_unsigned, is_float = deep.dtype.kind == "u", deep.dtype.kind == "f"
    if is_unsigned and bits <= 8:
        return deep if bits == 8 else (deep.astype(np.uint16) * 255 // ((1 << bits) - 1)).astype(np.uint8)
    if levels is not None:
        least, largest = levels
        scaled = (deep.astype(np.float64) - least) * (255 / (largest - least))
        return np.nan_to_num(scaled.clip(0, 255)).round().astype(np.uint8)
    known = deep[np.isfinite(deep)] if is_float else deep
    if not known.size:
        raise ImageFault("has no finite values")
    least, largest = known.min(), known.max()
    kind = " bits" if is_unsigned else "-bit floats" if is_float else "-bit signed integers"
    words = f"values {least:g} to {largest:g} of {bits}{kind}"
    is_part = is_unsigned and bits <= 16 and largest < 1 << (bits - 2)
    notes.append(Note("deep_samples", f"{words}, less than a quarter of their range" if is_part else words))
    if rounds and is_unsigned and bits == 16:
        return ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if is_unsigned and bits <= 16:
        return (deep >> (bits - 8)).astype(np.uint8)
    deep = np.where(np.isfinite(deep), deep, 0) if is_float else deep
    # Resampling and rounding can move floats slightly out of the range; they become 0 or 255, which is not a fault.
    slack = _SLACK if is_float else 0
    if is_float and least >= -slack / 255 and largest <= 1 + slack / 255:
        return (deep * 255).round().clip(0, 255).astype(np.uint8)
    if least >= -slack and largest <= 255 + slack:
        return deep.round().clip(0, 255).astype(np.uint8)
    raise ImageFault(f"has {words}: which values are black and white is unknown; set data.levels=[least, largest]")
