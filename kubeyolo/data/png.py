"""Reads PNG files: checksums, and samples of 16 bits (PNG specification, third edition)."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

from kubeyolo.data.headers import PNG_MAGIC, Header, ImageFault, png_chunks

_END = b"\0\0\0\0IEND\xaeB`\x82"
_UNDECODABLE = "is a damaged PNG (its pixels cannot be decoded)"

# First column, first row, and steps to the next column and row, of the seven passes of an interlaced image.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_LAST_FILTER = 4
_MOST_SIDE = 1_000_000
"""Largest side in pixels that libpng reads."""


def damage(data: bytes) -> str:
    """Check the checksums of all chunks.

    Returns:
        Damage that does not affect the pixels, in words; empty if there is none.

    Raises:
        ImageFault: A chunk that is needed for the pixels is damaged.
    """
    fault = ""
    view = memoryview(data)
    for kind, start, end in png_chunks(data):
        if end + 4 > len(data):
            break
        if zlib.crc32(view[start - 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            words = f"wrong checksum in chunk {kind.decode('latin-1')!r}"
            if not kind[0] & 32 or kind == b"tRNS":  # upper case: needed for the pixels
                raise ImageFault(f"is a damaged PNG ({words})")
            fault = words
        if kind == b"IEND":
            return fault
    return "truncated after its pixels (no IEND chunk)"


def pixels_alone(data: bytes) -> bytes:
    """Return a PNG that has only the chunks for its pixels: no colour profiles, texts or further frames.

    Decoders print faults in the removed chunks to the terminal.
    """
    needed = (b"PLTE", b"tRNS", b"IDAT")
    header = data[len(PNG_MAGIC) : len(PNG_MAGIC) + 25]
    parts = [data[start - 8 : end + 4] for kind, start, end in png_chunks(data) if kind in needed]
    return b"".join((PNG_MAGIC, header, *parts, _END))


def color_key(data: bytes) -> NDArray[np.uint16]:
    """Return the values (1,) or (3,) of the transparent colour of a 16-bit image; an empty array if there is none."""
    content = next((data[start:end] for kind, start, end in png_chunks(data) if kind == b"tRNS"), b"")
    return np.frombuffer(content[: len(content) // 2 * 2], ">u2").astype(np.uint16)


def deep_samples(data: bytes, header: Header) -> NDArray[np.uint16]:
    """Return samples of 16 bits (H, W, bands): grey, RGB or RGBA; grey with alpha is returned as RGBA.

    Pillow cannot decode RGB of 16 bits. OpenCV can, but prints faults to the terminal, so damaged files are refused
    before OpenCV decodes them.

    Raises:
        ImageFault: The pixels are damaged.
    """
    if max(header.width, header.height) > _MOST_SIDE:
        raise ImageFault(f"is a PNG of 16 bits with a side of more than {_MOST_SIDE} pixels; divide it into tiles")
    packed = b"".join(data[start:end] for kind, start, end in png_chunks(data) if kind == b"IDAT")
    unpacker = zlib.decompressobj()
    blocks = _blocks_of_rows(header, data[26:29])
    # One byte more than needed shows that there are too many bytes; blank data may unpack to a thousand times its size.
    _check_rows(unpacker.decompress(packed, sum(rows * row for rows, row in blocks) + 1), blocks)
    if not unpacker.eof:
        raise ImageFault(_UNDECODABLE)
    packed = packed[: len(packed) - len(unpacker.unused_data)]
    whole = b"".join((PNG_MAGIC, _chunk(b"IHDR", data[16:29]), _chunk(b"IDAT", packed), _END))
    image = cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16:
        raise ImageFault(_UNDECODABLE)
    return np.asarray(image[:, :, None] if image.ndim == 2 else image[:, :, [2, 1, 0, 3][: image.shape[2]]], np.uint16)


def _blocks_of_rows(header: Header, methods: bytes) -> list[tuple[int, int]]:
    """Return the number of rows of each pass, and the number of bytes in a row including its filter."""
    if methods not in (bytes(3), b"\0\0\1"):
        raise ImageFault(_UNDECODABLE)
    blocks = []
    for left, top, across, down in _PASSES if methods[2] else ((0, 0, 1, 1),):
        columns, rows = -(-(header.width - left) // across), -(-(header.height - top) // down)
        if columns > 0 and rows > 0:
            blocks.append((rows, 1 + columns * header.bands * header.bits // 8))
    return blocks


def _check_rows(pixels: bytes, blocks: list[tuple[int, int]]) -> None:
    """Refuse too few rows, too many rows, and rows with an unknown filter."""
    position = 0
    for rows, row in blocks:
        filters = pixels[position : position + rows * row : row]
        if len(filters) < rows or max(filters) > _LAST_FILTER:
            raise ImageFault(_UNDECODABLE)
        position += rows * row
    if len(pixels) != position:
        raise ImageFault(_UNDECODABLE)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
