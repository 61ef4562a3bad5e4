"""Reads TIFF files: directories, and samples as numbers, for any number of bands and bits.

TIFF 6.0 (Adobe, 1992), BigTIFF (libtiff), and the tags of Adobe's supplements 1 and 2. Pillow decompresses strips; the
layout of bands, bits and predictors is decoded here, because image libraries support few of the combinations.
"""

from __future__ import annotations

import ctypes
import io
import lzma
import math
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image

from kubeyolo.arrays import AnyArray, Pixels

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
ORIENTATION, BANDS, ROWS_PER_STRIP, PLANAR, PREDICTOR = 274, 277, 278, 284, 317
COLORS, EXTRA_SAMPLES, SAMPLE_FORMAT = 320, 338, 339
_KIND, _FILL_ORDER = 254, 266
_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES = 273, 279, 324, 325
_TILE_WIDTH, _TILE_HEIGHT = 322, 323

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, CMYK, YCBCR, CIELAB = 0, 1, 2, 3, 4, 5, 6, 8
UNSIGNED, SIGNED, FLOAT = 1, 2, 3

_FORMATS = {1: "B", 2: "c", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d"}
_FORMATS |= {13: "I", 16: "Q", 17: "q", 18: "Q"}
_MOST_PAGES = 65536
_LEAST_ENTRY = 12
"""Bytes of an entry of a directory, 20 in BigTIFF."""

_MOST_VALUES = 1 << 22
_MOST_PACKED_STRIPS = 1 << 16
_MOST_TILE_SIDE = 1 << 12
_LZMA_MEMORY = 1 << 28
_MOST_TEXTS, _LONGEST_TEXT = 1, 200
_PICTURES_OF_MPF, _DNG_VERSION = 0xB001, 50706
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
_NONE, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS, _LZMA, _ZSTD = 1, 5, 8, 32946, 32773, 34925, 50000
_PLAIN = (_NONE, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS, _LZMA, _ZSTD)
_MOST_EXPANDED = {_LZW: 1500, _PACKBITS: 64, _ZSTD: 1 << 15, _DEFLATE: 1100, _OLD_DEFLATE: 1100, _LZMA: 1 << 13}
"""The largest number of bytes into which a byte can be decompressed, even in a blank image."""

_COMPRESSIONS = {
    2: "CCITT modified Huffman",
    3: "CCITT group 3",
    4: "CCITT group 4",
    6: "old-style JPEG",
    7: "JPEG",
    _ZSTD: "Zstandard",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34887: "LERC",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_OTHERS_DECODE = (2, 3, 4, 7, 32771)


_USED = frozenset(
    (WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, BANDS, ROWS_PER_STRIP, PLANAR, PREDICTOR, COLORS)
    + (EXTRA_SAMPLES, SAMPLE_FORMAT, _KIND, _FILL_ORDER, _STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES, _TILE_WIDTH)
    + (_TILE_HEIGHT, _PICTURES_OF_MPF, _DNG_VERSION)
)
"""Tags that are read; the values of other tags may be as large as the file, in every directory again."""


class TiffFault(ValueError):
    """Why a TIFF file cannot be used, as words that follow its name."""


class TiffDamage(TiffFault):
    """The file is truncated or damaged."""


@dataclass(frozen=True)
class Directory:
    """One image file directory: the tags of a page.

    Attributes:
        order: Byte order of all numbers, "<" or ">".
        tags: The values of each tag whose values are numbers.
        orientation_offset: Offset in bytes of the value of the orientation; 0 if there is none.
    """

    order: str
    tags: Mapping[int, tuple[Any, ...]]
    orientation_offset: int = 0

    def number(self, tag: int, default: int = 0) -> int:
        """Return the first value of a tag."""
        values = self.tags.get(tag)
        return int(values[0]) if values and math.isfinite(values[0]) else default

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.number(WIDTH)

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.number(HEIGHT)

    @property
    def bands(self) -> int:
        """Number of samples in a pixel."""
        return self.number(BANDS, 1)

    @property
    def bits(self) -> int:
        """Number of bits in a sample; the largest number if the bands differ."""
        return max(int(bits) if math.isfinite(bits) else 0 for bits in self.tags.get(BITS) or (1,))

    @property
    def sample_format(self) -> int:
        """How numbers are stored: UNSIGNED, SIGNED or FLOAT."""
        number = self.number(SAMPLE_FORMAT, UNSIGNED)
        return UNSIGNED if number == 4 else number

    @property
    def compression(self) -> int:
        """The number of the compression scheme."""
        return self.number(COMPRESSION, _NONE)

    @property
    def is_page(self) -> bool:
        """Whether the page is a separate image, not a smaller copy or a mask of another page."""
        return not self.number(_KIND) & 0b101

    @property
    def orientation(self) -> int:
        """The orientation, 1 to 8 as in EXIF; 1 if it is missing or invalid."""
        number = self.number(ORIENTATION, 1)
        return number if 1 <= number <= 8 else 1


def is_tiff(data: bytes) -> bool:
    """Tell whether a file starts like a TIFF or BigTIFF."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def directories(data: bytes) -> Iterator[Directory]:
    """Yield the directories of a file in order.

    Raises:
        TiffDamage: A directory is beyond the end of the data.
    """
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    try:
        (offset,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
        seen: set[int] = set()
        entries = 0
        while offset and offset not in seen and len(seen) < _MOST_PAGES:
            seen.add(offset)
            page, count, offset = _directory(data, order, is_big, offset)
            entries += count
            if entries * _LEAST_ENTRY > len(data):
                raise TiffDamage("is a damaged TIFF (its directories overlap)")
            yield page
    except (struct.error, OverflowError) as error:
        raise TiffDamage("is a truncated TIFF (a directory is missing)") from error


def _directory(data: bytes, order: str, is_big: bool, offset: int) -> tuple[Directory, int, int]:
    """Return the directory at an offset, the number of its entries, and the offset of the next one."""
    count_format, entry_format, entry_size, inline = ("Q", "HHQ", 20, 8) if is_big else ("H", "HHI", 12, 4)
    (count,) = struct.unpack_from(order + count_format, data, offset)
    position = offset + struct.calcsize(order + count_format)
    if position + count * entry_size > len(data):
        raise TiffDamage("is a truncated TIFF (a directory is missing)")
    tags: dict[int, tuple[Any, ...]] = {}
    orientation_offset = 0
    for _ in range(count):
        tag, kind, length = struct.unpack_from(order + entry_format, data, position)
        at = position + entry_size - inline
        form = _FORMATS.get(kind)
        if tag in _USED and form and length <= _MOST_VALUES:
            form = f"{order}{length * len(form)}{form[0]}"
            if struct.calcsize(form) > inline:
                (at,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, at)
            if kind not in (2, 7) and at + struct.calcsize(form) <= len(data):
                tags.setdefault(tag, struct.unpack_from(form, data, at))
                orientation_offset = at if tag == ORIENTATION else orientation_offset
            elif tag in (_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES, BITS):
                raise TiffDamage("is a truncated TIFF (the list of its strips is missing)")
        position += entry_size
    (following,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, position)
    return Directory(order, tags, orientation_offset), count, following


def first_page(data: bytes) -> Directory:
    """Return the directory of the first page.

    Raises:
        TiffDamage: There is no page, or it has no size.
    """
    page = next(directories(data), None)
    if page is None or min(page.width, page.height, page.bands, page.bits) < 1:
        raise TiffDamage("is a damaged TIFF (no page with a size)")
    return page


def pages(data: bytes) -> int:
    """Return the number of pages in ``data``, without smaller copies and masks; at least 1."""
    count = 0
    try:
        for page in directories(data):
            count += page.is_page
    except TiffDamage:
        pass
    return max(count, 1)


def orientation_of_exif(exif: bytes) -> int:
    """Return the orientation (1 to 8) of an EXIF block, which is a TIFF; 1 if it is absent or invalid."""
    exif = exif.removeprefix(b"Exif\0\0")
    try:
        page = next(directories(exif), None) if is_tiff(exif) else None
    except TiffDamage:
        return 1
    return page.orientation if page is not None else 1


def check_strips(data: bytes, page: Directory) -> None:
    """Refuse a file that lacks strips or tiles.

    Raises:
        TiffDamage: The message has the number of missing strips.
    """
    starts, sizes, _ = _segments(page)
    beyond = sum(int(start) + int(size) > len(data) for start, size in zip(starts, sizes, strict=True))
    empty = sum(not size for size in sizes)
    if beyond or empty:
        raise TiffDamage(f"is a truncated TIFF ({beyond or empty} of {len(starts)} strips are missing)")


def _segments(page: Directory) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, int]]:
    """Return offsets and sizes in bytes of strips or tiles, and their width and height in pixels."""
    if _TILES in page.tags:
        size = page.number(_TILE_WIDTH), page.number(_TILE_HEIGHT)
        starts, sizes = page.tags[_TILES], page.tags.get(_TILE_BYTES, ())
    else:
        size = page.width, min(page.number(ROWS_PER_STRIP, page.height) or page.height, page.height)
        starts, sizes = page.tags.get(_STRIPS, ()), page.tags.get(_STRIP_BYTES, ())
    if min(size) < 1:
        raise TiffDamage("is a damaged TIFF (strips or tiles without a size)")
    if size[0] > max(_MOST_TILE_SIDE, page.width + 15) or size[1] > max(_MOST_TILE_SIDE, page.height + 15):
        raise TiffDamage(f"is a truncated TIFF (tiles of {size[0]} x {size[1]} pixels cannot be in it)")
    across, down = -(-page.width // size[0]), -(-page.height // size[1])
    planes = page.bands if page.number(PLANAR, 1) == 2 else 1
    needed = across * down * planes
    if not sizes and len(starts) == 1 and needed == 1 and page.compression == _NONE:
        sizes = (-(-page.width * page.bands * page.bits // 8) * page.height,)
    if any(isinstance(number, float) or number < 0 for number in (*starts, *sizes)):
        raise TiffDamage("is a damaged TIFF (offsets or sizes of strips that are not whole numbers)")
    if len(starts) < needed or len(sizes) < needed:
        raise TiffDamage(f"is a damaged TIFF (it lists {len(starts)} of {needed} strips)")
    return starts[:needed], sizes[:needed], size


def is_packed_by_others(page: Directory) -> bool:
    """Tell whether a page has a compression for photos, such as JPEG, which only Pillow decodes, not :func:`samples`.

    Raises:
        TiffFault: The compression is not supported; the message names it.
    """
    if page.compression in _PLAIN:
        return page.number(PHOTOMETRIC, BLACK_IS_ZERO) == YCBCR
    if page.compression in _OTHERS_DECODE:
        return True
    name = _COMPRESSIONS.get(page.compression, f"number {page.compression}")
    raise TiffFault(f"is a TIFF with {name} compression, which is not supported; save it uncompressed or with LZW")


def samples(data: bytes, page: Directory) -> AnyArray:
    """Return the samples (H, W, bands) of a page as stored: uint8 to uint64, int8 to int64, or float16 to float64.

    Samples of 1 to 7 bits are uint8, of 9 to 15 bits uint16, of 17 to 31 uint32, of 33 to 63 uint64.

    Raises:
        TiffDamage: The file is truncated or damaged.
        TiffFault: The type of the samples is not supported; the message names it.
    """
    bits = page.bits
    if len(set(page.tags.get(BITS) or (1,))) != 1:
        raise TiffFault(f"is a TIFF whose bands have {page.tags[BITS]} bits; save it with 8 or 16 bits in all bands")
    if (
        page.sample_format not in (UNSIGNED, SIGNED, FLOAT)
        or bits > 64
        or (page.sample_format != UNSIGNED and bits % 8)
    ):
        raise TiffFault("is a TIFF of complex numbers or with an unusual type of samples; save it as 8-bit RGB")
    if page.sample_format == FLOAT and bits not in (16, 32, 64):
        raise TiffFault(f"is a TIFF of {bits}-bit floats; save it as 8-bit RGB or 32-bit floats")
    check_strips(data, page)
    starts, sizes, (width, height) = _segments(page)
    is_planar = page.number(PLANAR, 1) == 2 and page.bands > 1
    bands = 1 if is_planar else page.bands
    is_tiled = _TILES in page.tags
    across, down = -(-page.width // width), -(-page.height // height)
    if len(starts) > _MOST_PACKED_STRIPS and page.compression in (_LZW, _PACKBITS, _ZSTD):
        raise TiffFault(f"is a TIFF of {len(starts)} compressed strips; save it with strips of more rows")
    result: AnyArray | None = None
    for i, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        plane, rest = divmod(i, across * down)
        top, left = rest // across * height, rest % across * width
        rows = height if is_tiled else min(height, page.height - top)
        packed = data[start : start + size]
        if page.number(_FILL_ORDER, 1) == 2:
            packed = packed.translate(_REVERSED)
        row_bytes = -(-width * bands * bits // 8)
        raw = _decompressed(packed, page.compression, row_bytes, rows)
        block = _numbers(raw, page, rows, width, bands, row_bytes)
        if result is None:
            result = np.zeros((page.height, page.width, page.bands), block.dtype)
        target = result[top : top + rows, left : left + width]
        part = block[: target.shape[0], : target.shape[1]]
        if is_planar:
            target[:, :, plane] = part[:, :, 0]
        else:
            target[:] = part
    assert result is not None
    return result


def _decompressed(packed: bytes, compression: int, row_bytes: int, rows: int) -> bytes:
    """Return ``rows`` x ``row_bytes`` bytes of a strip."""
    needed = row_bytes * rows
    try:
        if compression == _NONE:
            raw = packed
        elif needed > _MOST_EXPANDED[compression] * len(packed):
            raw = b""
        elif compression in (_DEFLATE, _OLD_DEFLATE):
            raw = zlib.decompressobj().decompress(packed, needed)
        elif compression == _LZMA:
            raw = lzma.LZMADecompressor(memlimit=_LZMA_MEMORY).decompress(packed, needed)
        else:
            raw = _decompressed_by_pillow(packed, compression, row_bytes, rows)
    except (zlib.error, lzma.LZMAError, OSError, SyntaxError, ValueError, EOFError) as error:
        if compression == _ZSTD:
            raise TiffFault("is a TIFF with Zstandard compression, which is not supported; save it with LZW") from error
        raise TiffDamage("is a damaged TIFF (a strip cannot be decompressed)") from error
    if len(raw) < needed:
        raise TiffDamage("is a truncated TIFF (a strip is incomplete)")
    return raw[:needed]


_Handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
_heard = threading.local()


@contextmanager
def heard_libtiff() -> Iterator[list[str]]:
    """Collect the warnings and errors of the libtiff in Pillow's wheels, which it would print to the terminal.

    Yields:
        The texts of this thread, at most one of each kind.
    """
    _catch_libtiff()
    texts: list[str] = []
    _heard.texts = texts
    try:
        yield texts
    finally:
        _heard.texts = None


def _hear(module: bytes | None, form: bytes | None, values: int | None) -> None:
    """Keep the text of a message of libtiff: a format of C, and the values for it as C's ``va_list``."""
    texts = getattr(_heard, "texts", None)
    if texts is not None and len(texts) < _MOST_TEXTS:
        buffer = ctypes.create_string_buffer(_LONGEST_TEXT)
        ctypes.CDLL(None).vsnprintf(buffer, _LONGEST_TEXT, form, ctypes.c_void_p(values))
        text = " ".join(buffer.value.decode("latin-1").split())
        if text not in texts:
            texts.append(text)


@cache
def _catch_libtiff() -> object:
    """Give libtiff a handler for its messages, and return the handler, which must outlive all calls."""
    try:
        handler = _Handler(_hear)
    except (MemoryError, OSError):
        handler = _Handler()  # a system that forbids callbacks: messages are neither printed nor collected
    for path in (Path(PIL.__file__).parents[1] / "pillow.libs").glob("libtiff*"):
        library = ctypes.CDLL(str(path))
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            setter = getattr(library, name)
            setter.argtypes, setter.restype = [_Handler], ctypes.c_void_p
            setter(handler)
    return handler


def _decompressed_by_pillow(packed: bytes, compression: int, row_bytes: int, rows: int) -> bytes:
    """Decompress a strip as if it were an 8-bit grey image whose width is the number of bytes in a row."""
    strip = ((256, row_bytes), (257, rows), (258, 8), (259, compression), (262, 1), (273, 0), (277, 1))
    entries = (*strip, (278, rows), (279, len(packed)))
    start = 8 + 2 + 12 * len(entries) + 4
    body = b"".join(struct.pack("<HHII", tag, 4, 1, start if tag == 273 else value) for tag, value in entries)
    image_file = b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + packed
    with heard_libtiff(), Image.open(io.BytesIO(image_file), formats=("TIFF",)) as image:
        return image.tobytes()


def _numbers(raw: bytes, page: Directory, rows: int, width: int, bands: int, row_bytes: int) -> AnyArray:
    """Return the samples (rows, width, bands) of a decompressed strip."""
    bits, predictor = page.bits, page.number(PREDICTOR, 1)
    if bits not in (8, 16, 32, 64):
        packed = np.frombuffer(raw, np.uint8)
        if bits % 8 == 0 and page.order == "<":
            packed = packed.reshape(-1, bits // 8)[:, ::-1]
        return _unpacked(packed.reshape(rows, row_bytes), bits, width * bands).reshape(rows, width, bands)
    letter = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f"}[page.sample_format]
    if predictor == 3 and letter == "f":
        return _undo_float_predictor(raw, rows, width, bands, bits // 8)
    numbers = np.frombuffer(raw, f"{page.order}{letter}{bits // 8}").reshape(rows, width, bands)
    numbers = numbers.astype(numbers.dtype.newbyteorder("="), copy=False)
    if predictor == 2 and letter != "f":
        whole = numbers.view(f"u{bits // 8}")
        numbers = np.cumsum(whole, axis=1, dtype=whole.dtype).view(numbers.dtype)
    return numbers


def _unpacked(rows: Pixels, bits: int, count: int) -> AnyArray:
    """Return ``count`` numbers of each row of packed bits, highest bit first."""
    kind: Any = np.uint8 if bits < 8 else np.uint16 if bits < 16 else np.uint32 if bits < 32 else np.uint64
    result = np.empty((len(rows), count), kind)
    weights = (1 << np.arange(bits - 1, -1, -1, dtype=np.uint64)).astype(kind)
    for i, row in enumerate(rows):  # row by row, because the unpacked bits take eight times the memory
        result[i] = np.unpackbits(row, count=count * bits).reshape(count, bits).astype(kind) @ weights
    return result


def _undo_float_predictor(raw: bytes, rows: int, width: int, bands: int, size: int) -> AnyArray:
    """Restore floats from differences of bytes, stored in planes from high to low byte (Adobe, technical note 3)."""
    planes = np.frombuffer(raw, np.uint8).reshape(rows, -1, bands)
    planes = np.cumsum(planes, axis=1, dtype=np.uint8).reshape(rows, size, width * bands)
    numbers = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(f">f{size}")
    return numbers.astype(f"=f{size}").reshape(rows, width, bands)
