"""Reads headers of image files: format, size, orientation, bands and bits. No pixels are decoded."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from kubeyolo.data import tiff
from kubeyolo.errors import InputError
from kubeyolo.file_kinds import kind_of
from kubeyolo.regular_files import open_regular

FORMATS = "JPEG, PNG, BMP, WebP and TIFF"
MOST_PIXELS = 1 << 30
MOST_SIDE = 1 << 20
FRONT_BYTES = 1 << 16
"""Number of bytes at the start of a file that nearly always contain its whole header."""

MOST_GROWTH = 1000
"""Bytes of pixels that a byte of a file may stand for, in images above :data:`FREE_BYTES`: blank images have more."""

FREE_BYTES = 1 << 26
"""Bytes of pixels of the largest image that may be blank."""

MOST_FILE_BYTES = 1 << 32
"""Largest size of an image file."""

MOST_SCANS = 100
"""Scans of the longest JPEG that is decoded; programs write about ten."""

SCANNED_PIXELS = 1 << 30
"""Pixels of all scans of a JPEG together, if it has more than :data:`USUAL_SCANS`."""

USUAL_SCANS = 20
"""Scans that every JPEG may have, whatever its size."""

_MOST_UNKNOWN = 1 << 26
"""Bytes of the largest file that is read although its first bytes are not those of an image."""

JPEG_MAGIC = b"\xff\xd8\xff"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_EXIF = b"Exif\0\0"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_KINDS = {0xC3: "lossless", 0xC7: "lossless", 0xCB: "lossless", 0xCF: "lossless", 0xF7: "JPEG-LS"}
_TGA_FOOTER = b"TRUEVISION-XFILE.\0"
_AS_TEXT = (b"data:image/", b"/9j/", b"iVBORw0KGgo")
_CHANGED = (b"\xc3\xbf\xc3\x98", b"\xef\xbf\xbd", b"\xc2\x89PNG", b"\x89PNG\n", b"\x89PNG\r\n\x1a\r\n")
_TEXT_BYTES = 256
_PNM = re.compile(rb"P[1-7F][ \t\r\n#]")
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]", re.DOTALL)
_MOST_PICTURES = 1000
_MOST_CHUNKS = 100_000
_MOST_EXIF = 1 << 20


class ImageFault(ValueError):
    """Why an image file cannot be used, as words that follow its name: "is a GIF image; JPEG, ... are supported"."""


class Incomplete(ImageFault):
    """The data ends within the header."""


@dataclass(frozen=True)
class Header:
    """The properties of an image that are known before it is decoded.

    Attributes:
        kind: "JPEG", "PNG", "BMP", "WebP" or "TIFF".
        width: Width in pixels, before ``orientation`` is applied.
        height: Height in pixels, before ``orientation`` is applied.
        orientation: EXIF orientation, 1 to 8; 1 if absent or invalid.
        pages: Number of pages or frames; if only the start of the file was read, only the pages in it are counted.
        bands: Number of samples in a decoded pixel, including alpha.
        bits: Number of bits in a sample.
        alpha: Whether pixels may be transparent.
        is_float: Whether samples are floating-point numbers.
    """

    kind: str
    width: int
    height: int
    orientation: int = 1
    pages: int = 1
    bands: int = 3
    bits: int = 8
    alpha: bool = False
    is_float: bool = False

    def size(self, orientation: int) -> tuple[int, int]:
        """Return width and height of the image after an EXIF orientation (1 to 8) is applied; 5 to 8 swap them."""
        return (self.height, self.width) if orientation >= 5 else (self.width, self.height)


def read_header(data: bytes) -> Header:
    """Return the header of an image file.

    Args:
        data: The content of the file, or its first 64 KB, which are nearly always enough.

    Raises:
        Incomplete: The header continues after the end of ``data``.
        ImageFault: The format is not supported, or the image is too large.
    """
    try:
        header = _READERS[kind_of_image(data)](data)
    except (struct.error, IndexError, OverflowError) as error:
        raise Incomplete("ends within its header") from error
    except tiff.TiffDamage as error:
        raise Incomplete(str(error)) from error
    except tiff.TiffFault as error:
        raise ImageFault(str(error)) from error
    if header.width < 1 or header.height < 1:
        raise ImageFault(f"is a damaged {header.kind} (its size is {header.width} x {header.height})")
    if header.width * header.height > MOST_PIXELS or max(header.width, header.height) > MOST_SIDE:
        raise ImageFault(
            f"has {header.width} x {header.height} pixels; at most 2^30 pixels and 2^20 pixels per side are supported: "
            "divide it into tiles"
        )
    return header


def check_growth(header: Header, size: int) -> None:
    """Refuse an image whose pixels need much more memory than its file can justify, before they are decoded.

    Args:
        header: The header of the image.
        size: Size of its file in bytes.

    Raises:
        ImageFault: The image is larger than :data:`FREE_BYTES` and grows by more than :data:`MOST_GROWTH`.
    """
    pixels = header.width * header.height
    decoded = max(3 * pixels, pixels * header.bands * header.bits // 8)
    if decoded > max(FREE_BYTES, MOST_GROWTH * size):
        raise ImageFault(
            f"is a {header.kind} of {size} bytes that would grow to {header.width} x {header.height} pixels, which "
            "only a blank or damaged image does; remove it, or divide it into tiles"
        )


def check_scans(data: bytes, header: Header) -> None:
    """Refuse a JPEG with so many scans that decoding it takes minutes.

    Raises:
        ImageFault: There are more than :data:`MOST_SCANS`, or in a large image more than :data:`USUAL_SCANS`.
    """
    most = min(MOST_SCANS, max(USUAL_SCANS, SCANNED_PIXELS // (header.width * header.height)))
    if data.count(b"\xff\xda") <= most:
        return
    # Scans of thumbnails, and of pictures after the end of the first one, do not count.
    start = next(end for marker, _, end in jpeg_segments(data) if marker == 0xDA)
    stop = data.find(b"\xff\xd9", start)
    count = 1 + data.count(b"\xff\xda", start, stop if stop >= 0 else len(data))
    if count > most:
        raise ImageFault(f"is a JPEG of {count} scans, at most {most} are supported for its size; save it again")


def open_image(path: Path) -> BinaryIO:
    """Open a regular file for reading; a pipe or a device, which may never end, is not waited for.

    Raises:
        ImageFault: It is not a regular file.
        OSError: It cannot be opened.
    """
    try:
        return open_regular(path)
    except InputError as error:
        raise ImageFault("is not a regular file") from error


def read_image_file(path: Path) -> bytes:
    """Return the content of an image file.

    Raises:
        ImageFault: It is not a regular file, or it is large and is not an image.
        OSError: It cannot be read.
    """
    with open_image(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_FILE_BYTES:
            raise ImageFault(f"has {size} bytes, at most {MOST_FILE_BYTES} are supported: divide it into tiles")
        if size > _MOST_UNKNOWN:
            kind_of_image(file.read(FRONT_BYTES))
            file.seek(0)
        return file.read()


def read_file_header(path: Path) -> Header:
    """Return the header of a file; the whole file is read only if its first 64 KB are not enough.

    Raises:
        ImageFault: As :func:`read_header`; or it is not a regular file.
        OSError: The file cannot be read.
    """
    with open_image(path) as file:
        front = file.read(FRONT_BYTES)
        try:
            header = read_header(front)
        except Incomplete:
            return read_header(front + file.read(MOST_FILE_BYTES))
        if header.orientation == 1 and len(front) == FRONT_BYTES:
            return replace(header, orientation=_orientation_after_pixels(file, header.kind))
        return header


def _orientation_after_pixels(file: BinaryIO, kind: str) -> int:
    """Return the orientation from a chunk after the pixels, as in every WebP and some PNGs; 1 for other formats."""
    if kind not in ("PNG", "WebP"):
        return 1
    position, wanted = (len(PNG_MAGIC), b"eXIf") if kind == "PNG" else (12, b"EXIF")
    for _ in range(_MOST_CHUNKS):
        if file.seek(position) != position or len(head := file.read(8)) < 8:
            break
        name, length = (head[4:], int.from_bytes(head[:4], "big")) if kind == "PNG" else struct.unpack("<4sI", head)
        if name == wanted:
            return tiff.orientation_of_exif(file.read(min(length, _MOST_EXIF)))
        position += 12 + length if kind == "PNG" else 8 + length + length % 2
    return 1


def size_of_file(path: Path, apply_orientation: bool = True) -> tuple[int, int] | None:
    """Return width and height of an image file, before or after its rotation by EXIF; None if it cannot be read."""
    try:
        header = read_file_header(path)
    except (OSError, ImageFault):
        return None
    return header.size(header.orientation if apply_orientation else 1)


def kind_of_image(data: bytes) -> str:
    """Return the format of a file, recognized from its first bytes.

    Raises:
        ImageFault: The format is not supported; the message names the format if it is recognized.
    """
    if data.startswith(JPEG_MAGIC):
        return "JPEG"
    if data.startswith(PNG_MAGIC):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if tiff.is_tiff(data):
        return "TIFF"
    if (
        data[:2] == b"BM"
        and len(data) >= 18
        and struct.unpack_from("<I", data, 14)[0] in (12, 16, 40, 52, 56, 64, 108, 124)
    ):
        return "BMP"
    raise ImageFault(f"is {_other_kind(data)}; {FORMATS} are supported")


def _other_kind(data: bytes) -> str:
    if not data:
        return "empty (zero bytes)"
    if data[:2] != b"BM":  # otherwise the file starts like a BMP but is not a valid BMP
        known = kind_of(data)
        if known:
            return known
    if _PNM.match(data[:3]):
        return "a PNM image"
    if data[-18:] == _TGA_FOOTER or _is_old_tga(data):
        return "a TGA image"
    if data[:4] in (b"\0\0\1\0", b"\0\0\2\0"):
        return "an icon (ICO)"
    if data[128:132] == b"DICM":
        return "a DICOM image"
    if data.startswith(_AS_TEXT):
        return "an image as text (base64), which must be decoded first"
    if data.startswith(_CHANGED):
        return "an image that was changed as if it were text (copied in text mode, or stored as UTF-8)"
    if data.count(0) == len(data):
        return f"not an image, but {len(data)} zero bytes (from an interrupted copy)"
    front = data[:_TEXT_BYTES].decode("utf-8", "ignore")
    if front and all(part.isprintable() for part in front.split()):
        return f"not an image, but text ({' '.join(front.split())[:40]!r})"
    return "not an image"


def _is_old_tga(data: bytes) -> bool:
    """Tell whether the first 18 bytes are valid as the header of TGA version 1, which has no magic number."""
    if len(data) < 32:
        return False
    has_map, kind, map_bits, width, height, bits = struct.unpack_from("<xBB4xB4xHHB", data)
    color_mapped = kind in (1, 9)
    sound = kind in (1, 2, 3, 9, 10, 11) and has_map == int(color_mapped) and width and height
    return bool(sound and bits in (8, 15, 16, 24, 32) and map_bits in ((15, 16, 24, 32) if color_mapped else (0,)))


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment of a JPEG, up to and including the first scan.

    ITU-T T.81, annex B. The last segment may end beyond the data.

    Raises:
        Incomplete: The data ends before the first scan.
    """
    position, size = 2, len(data)
    while True:
        # No segment follows the markers that are left out, nor bytes that fill the space between segments.
        found = _MARKER.search(data, position)
        position = size if found is None else found.start()
        if position + 4 > size:
            raise Incomplete("is a truncated JPEG (it ends within its header)")
        marker = data[position + 1]
        if marker == 0xD9:
            raise ImageFault("is a damaged JPEG (it ends before its pixels)")
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, position + 4, end
        if marker == 0xDA:
            return
        position = end


def _jpeg_header(data: bytes) -> Header:
    orientation, pictures = 0, 0
    for marker, start, end in jpeg_segments(data):
        if marker == 0xE1 and not orientation and data.startswith(_EXIF, start):
            orientation = tiff.orientation_of_exif(data[start:end])
        elif marker == 0xE2 and data.startswith(b"MPF\0", start):
            pictures = start + 4
        elif marker in _FRAMES or marker == 0xF7:
            bits, height, width, bands = struct.unpack_from(">BHHB", data, start)
            if marker in _JPEG_KINDS or bits != 8:
                what = _JPEG_KINDS.get(marker, "")
                kind = "a JPEG-LS image" if marker == 0xF7 else f"a {what} JPEG of {bits} bits".replace("  ", " ")
                raise ImageFault(f"is {kind}, which is not supported; save it as PNG or as a JPEG of 8 bits")
            if not height:
                raise ImageFault("is a JPEG without a height in its header; save it again")
            pages = _pictures_of_mpf(data, pictures, (height, width)) if pictures else 1
            return Header("JPEG", width, height, orientation or 1, pages, bands)
    raise ImageFault("is a damaged JPEG (no frame before its pixels)")


def _pictures_of_mpf(data: bytes, start: int, size: tuple[int, int]) -> int:
    """Return the number of pictures in a multi-picture file (CIPA DC-007), without previews and gain maps.

    Args:
        data: The content of the file.
        start: Offset of the index of the pictures, which is a TIFF.
        size: Height and width of the first picture.
    """
    block = data[start:]
    try:
        index = next(tiff.directories(block))
        count = index.number(0xB001, 1)
        at = block.index(struct.pack(index.order + "HHI", 0xB002, 7, 16 * count)) + 8
        (at,) = struct.unpack_from(index.order + "I", block, at)
        entries = [
            struct.unpack_from(index.order + "III", block, at + 16 * i) for i in range(min(count, _MOST_PICTURES))
        ]
    except (ValueError, StopIteration, OverflowError, struct.error):
        return 1
    # The type 0x02.... is a panorama, disparity or angles, 0x01.... a preview; without a type the size decides.
    kinds = [(kind & 0xFFFFFF, offset) for kind, _, offset in entries[1:]]
    fronts = {offset: block[offset : offset + FRONT_BYTES] for kind, offset in kinds if kind == 0}
    return 1 + sum(kind >> 16 == 2 or (kind == 0 and _jpeg_size(fronts[offset]) == size) for kind, offset in kinds)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return height and width of a JPEG; None if the data is not a JPEG or ends within its header."""
    try:
        for marker, start, _ in jpeg_segments(data) if data.startswith(JPEG_MAGIC) else ():
            if marker in _FRAMES:
                height, width = struct.unpack_from(">HH", data, start + 1)
                return height, width
    except (ImageFault, struct.error):
        pass
    return None


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each chunk of a PNG, and start and end of its content; the last may end beyond the data."""
    position = len(PNG_MAGIC)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, position + 8, position + 8 + length
        position += 12 + length


def _png_header(data: bytes) -> Header:
    width, height, bits, color = struct.unpack_from(">IIBB", data, 16)
    if data[12:16] != b"IHDR" or color not in (0, 2, 3, 4, 6):
        raise ImageFault("is a damaged PNG (it does not start with its header)")
    orientation, pages, alpha, before_pixels = 1, 1, color in (4, 6), True
    for kind, start, end in png_chunks(data):
        if kind == b"IDAT":
            before_pixels = False
        elif kind == b"tRNS":
            alpha = True
        elif kind == b"eXIf":
            orientation = tiff.orientation_of_exif(data[start:end])
        elif kind == b"acTL" and before_pixels:
            pages = max(1, struct.unpack_from(">I", data, start)[0])
    bands = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[color]
    return Header("PNG", width, height, orientation, pages, bands, bits, alpha)


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each chunk of a WebP, and start and end of its content; the last may end beyond the data."""
    position = 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        yield kind, position + 8, position + 8 + length
        position += 8 + length + length % 2


def _webp_header(data: bytes) -> Header:
    width = height = pages = 0
    orientation, alpha = 1, False
    for kind, start, end in webp_chunks(data):
        if kind == b"VP8X":
            flags = data[start]
            width = 1 + int.from_bytes(data[start + 4 : start + 7], "little")
            height = 1 + int.from_bytes(data[start + 7 : start + 10], "little")
            alpha = bool(flags & 0x10)
            if len(data) < start + 10:
                raise Incomplete("is a truncated WebP")
        elif kind == b"VP8 " and not width:
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, start + 6))
        elif kind == b"VP8L" and not width:
            (packed,) = struct.unpack_from("<I", data, start + 1)
            width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
            alpha = bool(packed >> 28 & 1)
        elif kind == b"ANMF":
            pages += 1
        elif kind == b"EXIF":
            orientation = tiff.orientation_of_exif(data[start:end])
    if not width:
        raise Incomplete("is a truncated WebP (no image in it)")
    return Header("WebP", width, height, orientation, max(pages, 1), 4 if alpha else 3, 8, alpha)


def _tiff_header(data: bytes) -> Header:
    page = tiff.first_page(data)
    color = page.number(tiff.PHOTOMETRIC, tiff.BLACK_IS_ZERO)
    alpha = any(kind in (1, 2) for kind in page.tags.get(tiff.EXTRA_SAMPLES, ()))
    bands, bits = (3, 8) if color == tiff.PALETTE else (page.bands, page.bits)
    is_float = page.sample_format == tiff.FLOAT
    count = tiff.pages(data)
    return Header("TIFF", page.width, page.height, page.orientation, count, bands, bits, alpha, is_float)


def _bmp_header(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return Header("BMP", width, height)
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    mask = 0
    if bits == 32 and size >= 56 and compression in (3, 6):
        (mask,) = struct.unpack_from("<I", data, 14 + 52)
    if compression in (4, 5):
        raise ImageFault("is a BMP that contains a JPEG or PNG, which is not supported; save it as PNG")
    return Header("BMP", width, abs(height), bands=4 if mask else 3, alpha=bool(mask))


_READERS = {"JPEG": _jpeg_header, "PNG": _png_header, "WebP": _webp_header, "TIFF": _tiff_header, "BMP": _bmp_header}
