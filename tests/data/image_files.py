"""Image files for the tests: of many formats, with orientations, and TIFFs that no library writes."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image


def smooth_image(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Return an image (height, width, 3) of blurred colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def saved(image: Image.Image | np.ndarray, kind: str, orientation: int = 0, **options) -> bytes:
    """Return the file of an image, with an EXIF orientation where one is given."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    if orientation:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif.tobytes()
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# How the pixels lie in a file whose viewer shows them upright: what undoes the turn of each orientation.
UNDO = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, 1),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image, -1),
}


def stored_turned(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Return the pixels that a viewer turns by ``orientation`` to show ``upright``."""
    return np.ascontiguousarray(UNDO[orientation](upright))


def bmp_with_alpha(rgba: np.ndarray) -> bytes:
    """Return a BMP of 32 bits (H, W, 4) whose header (BITMAPV4HEADER) says where alpha is."""
    height, width = rgba.shape[:2]
    pixels = np.ascontiguousarray(rgba[::-1, :, [2, 1, 0, 3]]).tobytes()
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII4I", 108, width, height, 1, 32, 3, len(pixels), 2835, 2835, 0, 0, *masks)
    header += b"BGRs" + bytes(48)
    return struct.pack("<2sIII", b"BM", 14 + len(header) + len(pixels), 0, 14 + len(header)) + header + pixels


def tiff_file(
    samples: np.ndarray, *, order="<", photometric=1, bits=None, extra=(), planar=1, packed=None, tags=(), deflate=False
) -> bytes:
    """Return a TIFF of samples (H, W, bands) in one strip, or one for each band.

    Args:
        samples: Numbers of the type that is stored.
        order: "<" or ">".
        photometric: Interpretation of the colours.
        bits: Bits of a sample; by default those of the type.
        extra: Kinds of the bands after the colours: 0 unspecified, 1 associated alpha, 2 unassociated alpha.
        planar: 1 for pixels one after the other, 2 for bands.
        packed: The bytes of the strip instead of the samples'.
        tags: More tags, each (number, value).
        deflate: Whether strips are compressed.
    """
    height, width, bands = samples.shape
    bits = bits or samples.dtype.itemsize * 8
    ordered = samples.astype(samples.dtype.newbyteorder(order))
    strips = [packed] if packed is not None else [ordered.tobytes()]
    if planar == 2:
        strips = [np.ascontiguousarray(ordered[:, :, band]).tobytes() for band in range(bands)]
    strips = [zlib.compress(strip) for strip in strips] if deflate else strips
    form = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    entries = {256: (width,), 257: (height,), 258: (bits,) * bands, 259: (8 if deflate else 1,), 262: (photometric,)}
    entries |= {273: (0,) * len(strips), 277: (bands,), 278: (height,), 279: tuple(map(len, strips)), 284: (planar,)}
    entries |= {338: tuple(extra)} if extra else {}
    entries |= {339: (form,) * bands, **{number: (value,) for number, value in tags}}
    place = 8 + 2 + 12 * len(entries) + 4
    outside = b""
    start = place + sum(4 * len(values) for values in entries.values() if len(values) > 1)
    entries[273] = tuple(start + sum(map(len, strips[:i])) for i in range(len(strips)))
    directory = struct.pack(order + "H", len(entries))
    for tag, values in sorted(entries.items()):
        value = values[0]
        if len(values) > 1:
            value = place + len(outside)
            outside += struct.pack(f"{order}{len(values)}I", *values)
        directory += struct.pack(order + "HHII", tag, 4, len(values), value)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return head + directory + bytes(4) + outside + b"".join(strips)
