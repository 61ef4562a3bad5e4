"""Image files to pixels, and what can be wrong with an image file.

The EXIF orientation is ignored everywhere: boxes are annotated, checked, trained and drawn on the pixels as stored.
"""

from __future__ import annotations

import re
import struct
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
# In entropy-coded data FF is followed by 00 (stuffing), a restart marker, or fill; anything else is a marker.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def decode_image(data: bytes) -> NDArray[np.uint8] | None:
    """Return the image (H, W, 3) RGB uint8 as stored, or None when ``data`` is not an image."""
    if not data:
        return None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    if image is None:
        return None
    rgb: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def image_fault(data: bytes, width: int, height: int) -> str | None:
    """Return what is wrong with an image file, or None when it decodes whole to ``width`` x ``height`` pixels."""
    if not data:
        return "is empty (zero bytes)"
    fault = container_fault(data)
    if fault:
        return fault
    image = decode_image(data)
    if image is None:
        return "is not an image (JPEG, PNG, BMP, WebP or TIFF)"
    if image.shape[:2] != (height, width):
        found = f"{image.shape[1]} x {image.shape[0]}"
        note = "; EXIF orientation is ignored" if image.shape[:2] == (width, height) else ""
        return f"has {found} pixels where the annotations say {width} x {height}{note}"
    return None


def container_fault(data: bytes) -> str | None:
    """Return how a JPEG, PNG, WebP or BMP file is cut short or damaged; decoders fill what is missing in silence."""
    if data.startswith(_JPEG):
        return None if _jpeg_is_whole(data) else "is a truncated JPEG (no end-of-image marker)"
    if data.startswith(_PNG):
        return _png_fault(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return None if len(data) >= 8 + struct.unpack_from("<I", data, 4)[0] else "is a truncated WebP"
    if data[:2] == b"BM" and len(data) >= 6:
        return None if len(data) >= struct.unpack_from("<I", data, 2)[0] else "is a truncated BMP"
    return None


def _jpeg_is_whole(data: bytes) -> bool:
    """Walk the marker segments to the end of the image (ITU-T T.81, annex B).

    A search for the last FFD9 would find that of an embedded thumbnail; bytes after the image are no fault.
    """
    position = 2
    while True:
        found = _MARKER.search(data, position)
        if found is None:
            return False
        marker = data[found.start() + 1]
        if marker == 0xD9:
            return True
        position = found.end()
        if marker in (0x01, 0xD8):  # markers that stand alone
            continue
        if position + 2 > len(data):
            return False
        position += struct.unpack_from(">H", data, position)[0]


def _png_fault(data: bytes) -> str | None:
    """Walk the chunks to IEND and compare their checksums (PNG specification, section 5)."""
    position = len(_PNG)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            return f"is a damaged PNG (wrong checksum in chunk {kind.decode('latin-1')!r})"
        if kind == b"IEND":
            return None
        position = end
    return "is a truncated PNG (no IEND chunk)"
