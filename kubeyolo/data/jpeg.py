"""Decodes JPEGs with libjpeg-turbo, and determines how much of a damaged JPEG is lost."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg

from kubeyolo.arrays import BoolArray, Pixels
from kubeyolo.data.headers import Header, ImageFault, jpeg_segments
from kubeyolo.formats import share_text

SMALL_PART = 0.05
"""Damage to a smaller fraction of an image is only a warning."""

_END = b"\xff\xd9"
_GREY = 128
_GREY_OF_INKS = 64
"""RGB value, within 1, of the grey with which libjpeg fills missing data of a CMYK image."""

_VISIBLE = 30
"""Grey levels: a pixel counts as lost if scans of finer detail change it by more."""
# In an undamaged scan no byte is repeated this often, except in images that are nearly of one colour.
_RUN = 48
_RUNS = re.compile(rb"(.)\1{%d,}" % (_RUN - 1), re.DOTALL)
_ZEROS = bytes(_RUN)
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_FEW_BYTES = 2
_SMALL_FACTOR = 8
_HEADER_WARNINGS = ("progression", "SOS parameters")


def decode_jpeg(data: bytes, header: Header) -> Pixels:
    """Return the pixels (H, W, 3) RGB of a JPEG; libjpeg fills damaged parts, and no warning is raised.

    Raises:
        ImageFault: Nothing can be decoded.
    """
    try:
        return _decode(_mended_header(data, header)[0], header, strict=False)
    except ValueError as error:
        raise ImageFault(f"is a damaged JPEG ({_plain(error)})") from error


def small_grey_jpeg(data: bytes, header: Header) -> Pixels:
    """Return the grey values (H / 8, W / 8) of a JPEG of brightness and colours, without computing its full pixels.

    Raises:
        ImageFault: Nothing can be decoded.
    """
    try:
        data = _mended_header(data, header)[0]
        grey: Pixels = simplejpeg.decode_jpeg(
            data, "GRAY", fastdct=True, fastupsample=True, min_factor=_SMALL_FACTOR, strict=False
        )
    except ValueError as error:
        raise ImageFault(f"is a damaged JPEG ({_plain(error)})") from error
    return grey


def look_at_jpeg(data: bytes, header: Header) -> tuple[Pixels, str, str]:
    """Return the pixels of a JPEG, and the code and the words of a note on its damage; both are empty without damage.

    Raises:
        ImageFault: A large part cannot be decoded.
    """
    check_length(data, header)
    data, fault = _mended_header(data, header)
    try:
        pixels = _decode(data, header, strict=True)
    except ValueError as error:
        warning = _plain(error)
    else:
        _check_hole(data, header, pixels)
        return pixels, "image_warning" if fault else "", fault
    pixels = decode_jpeg(data, header)
    if not data.rstrip(b"\0").endswith(_END) and warning.startswith("Premature end of JPEG file"):
        return pixels, *_ends_early(data, header)
    lost = _lost_part(data, header, pixels, warning)
    if lost >= SMALL_PART:
        part = f"; about {share_text(lost, 0)} of the image is lost" if lost < 1 else ""
        raise ImageFault(f"is a damaged JPEG ({warning}{part})")
    return pixels, "image_warning", warning


def _mended_header(data: bytes, header: Header) -> tuple[bytes, str]:
    """Correct header faults of a JPEG that do not affect pixels; return the data, and the faults in words, if any.

    libjpeg only warns of these faults, but simplejpeg refuses the file.
    """
    parts, faults, position = [data[:2]], [], 2
    for marker, start, end in jpeg_segments(data):
        extra = len(data[position : start - 4].strip(b"\xff"))
        if extra:
            faults.append(f"{extra} bytes too many in the header")
        segment = bytearray(data[start - 4 : end])
        if marker == 0xE0 and segment[4:9] == b"JFIF\0" and len(segment) >= 18 and segment[9] != 1:
            faults.append(f"JFIF {segment[9]}.{segment[10]:02}, which does not exist")
            segment[9] = 1
        elif marker == 0xEE and segment[4:9] == b"Adobe" and len(segment) >= 16 and segment[15] > 2:
            faults.append(f"colour transform {segment[15]} of Adobe, which does not exist")
            segment[15] = 2 if header.bands == 4 else 1
        parts.append(bytes(segment))
        position = end
    return (b"".join([*parts, data[position:]]), "; ".join(faults)) if faults else (data, "")


def _decode(data: bytes, header: Header, strict: bool) -> Pixels:
    is_rgb = header.bands != 4
    # If libjpeg stops decoding early, it does not write the rest of the buffer.
    buffer = np.full((header.height, header.width, 3 if is_rgb else 4), _GREY, np.uint8)
    if is_rgb:
        rgb: Pixels = simplejpeg.decode_jpeg(data, "RGB", buffer=buffer, strict=strict)
        return rgb
    inks = simplejpeg.decode_jpeg(data, "CMYK", buffer=buffer, strict=strict)
    # Adobe's programs store inverted CMYK.
    return light_of_inks(inks if _is_adobe(data) else 255 - inks)


def light_of_inks(light: Pixels) -> Pixels:
    """Convert inverted CMYK (H, W, 4), in which 255 means no ink, to RGB (H, W, 3)."""
    black = light[:, :, 3:].astype(np.uint16)
    return ((light[:, :, :3] * black + 127) // 255).astype(np.uint8)


def _is_adobe(data: bytes) -> bool:
    return any(marker == 0xEE and data.startswith(b"Adobe", start) for marker, start, _ in jpeg_segments(data))


def check_length(data: bytes, header: Header) -> None:
    """Refuse a file that is too short for its pixels, before memory and time are spent on decoding.

    Raises:
        ImageFault: The file has less than one bit for each Huffman code that each block of 8 x 8 pixels needs.
    """
    frame, _ = _frame(data)
    bits = {0xC0: 2, 0xC1: 2, 0xC2: 1}.get(frame, 0)  # arithmetic coding has no least length
    needed = bits * -(-header.width // 8) * -(-header.height // 8) // 8
    there = len(data) - _scan_start(data)
    if there < (1 - SMALL_PART) * needed - 1:
        raise ImageFault(
            f"is a damaged JPEG ({there} bytes of pixel data cannot hold {header.width} x {header.height} pixels)"
        )


def _plain(error: ValueError) -> str:
    """Return a warning of libjpeg without its usual prefix."""
    return str(error).removeprefix("Corrupt JPEG data: ")


def _ends_early(data: bytes, header: Header) -> tuple[str, str]:
    """Return the code and the words of the note on a file without an end marker.

    Raises:
        ImageFault: A large part of the image is missing too.
    """
    has_all_scans = _scans_are_complete(data)
    # Zeros at the end may be padding of a truncated file, or blocks of one colour.
    content = data.rstrip(b"\0")
    if has_all_scans and (_is_clean(data + _END, header) or _is_clean(content + _END, header)):
        return "jpeg_without_end", "no end marker; all pixels are there"
    lost = grey_part(decode_jpeg(content if len(data) - len(content) >= _RUN else data, header), header)
    if lost >= SMALL_PART:
        raise ImageFault(f"is a truncated JPEG (the lower {share_text(lost, 0)} of the image is missing)")
    if not has_all_scans:
        raise ImageFault("is a truncated JPEG (scans with details of the image are missing)")
    if _is_progressive(data):
        return "image_warning", "truncated in its last scan, which has the finest detail"
    return "image_warning", f"truncated, {share_text(lost)} of the image is missing"


def _is_clean(data: bytes, header: Header) -> bool:
    try:
        _decode(data, header, strict=True)
    except ValueError:
        return False
    return True


def _filled(pixels: Pixels, header: Header) -> BoolArray:
    """Return whether each pixel (H, W) has the grey with which libjpeg fills missing data."""
    if header.bands != 4:
        return np.asarray((pixels == _GREY).all(axis=2))
    return np.asarray((np.abs(pixels.astype(np.int16) - _GREY_OF_INKS) <= 1).all(axis=2))


def grey_part(pixels: Pixels, header: Header) -> float:
    """Return the fraction at the end of an image that libjpeg filled with grey because the data ended."""
    height, width = pixels.shape[:2]
    is_grey = _filled(pixels, header)
    other = np.flatnonzero(~is_grey.all(axis=1))
    last = int(other[-1]) + 1 if len(other) else 0
    top = max(0, (last - 1) // 8 * 8)
    columns = np.flatnonzero(~is_grey[top:last].all(axis=0)) if last else np.empty(0, int)
    right = width - (int(columns[-1]) + 1) if len(columns) else 0
    return ((height - last) * width + right * (last - top)) / (height * width)


def _lost_part(data: bytes, header: Header, pixels: Pixels, warning: str) -> float:
    """Return the fraction of the image that is damaged, 1 if it cannot be determined.

    After damage in a sequential JPEG the image is shifted and has wrong colours up to the next restart marker, or up to
    its end if there are no restart markers.
    """
    if any(word in warning for word in _HEADER_WARNINGS):
        return 0.0
    start = _scan_start(data)
    runs = [(found.start(), found.end()) for found in _RUNS.finditer(data, start)]
    in_runs = sum(stop - begin for begin, stop in runs) / (len(data) - start)
    extraneous = _EXTRANEOUS.search(warning)
    count, end = int(extraneous[1]) if extraneous else 0, data.rfind(_END)
    if extraneous and len(set(data[end - count : end])) <= 1:  # padding
        return 0.0
    if _is_progressive(data):
        return max(in_runs, grey_part(pixels, header), _lost_in_scans(data, header, pixels))
    interval = _restart_interval(data)
    if interval:
        markers = [found[1][0] - 0xD0 for found in _RESTART.finditer(data, start)]
        lost = lost_intervals(markers, -(-_blocks(data) // interval))
        if lost is not None:
            return max(in_runs, grey_part(pixels, header), lost)
    if runs:
        # If only the data before the damage is decoded, the rest of the image is grey.
        return grey_part(decode_jpeg(data[: runs[0][0]] + _END, header), header)
    return 0.0 if extraneous and count <= _FEW_BYTES else 1.0


def lost_intervals(markers: Sequence[int], intervals: int) -> float | None:
    """Return the fraction of restart intervals that is lost; None if the rest of the image is shifted.

    Follows libjpeg (``jpeg_resync_to_restart``): a marker one or two ahead of the expected number is kept for its own
    interval, a marker one or two behind is skipped, and any other marker is used as the expected marker.

    Args:
        markers: Numbers (0 to 7) of the restart markers in the scan, in order.
        intervals: Number of restart intervals; each except the first starts with a marker.
    """
    at, lost, placed = 0, 0, -1
    for due in range(intervals - 1):
        while at < len(markers) and (markers[at] - due) % 8 in (6, 7):
            at += 1
        ahead = (markers[at] - due) % 8 if at < len(markers) else 1
        lost += ahead != 0
        if ahead not in (1, 2):
            at, placed = at + 1, due
    # The decoder is synchronized again only if the last marker belongs to the last interval and no marker is left over.
    is_shifted = at != len(markers) or placed != intervals - 2
    return None if is_shifted else lost / intervals


def _check_hole(data: bytes, header: Header, pixels: Pixels) -> None:
    """Refuse a sequential JPEG with a part overwritten by zeros that happen to decode to the right number of blocks.

    If the zeros belong to the image, each of their blocks repeats the block before it.

    Raises:
        ImageFault: A part before the end of the data is overwritten by zeros.
    """
    hole = data.find(_ZEROS)
    if hole < 0:
        return
    hole = data.find(_ZEROS, _scan_start(data))
    if hole < 0 or _is_progressive(data) or _restart_interval(data):
        return
    stop = hole + len(data[hole:]) - len(data[hole:].lstrip(b"\0"))
    before, after = (decode_jpeg(data[:end] + _END, header) for end in (hole, stop))
    filled = pixels[_filled(before, header) & ~_filled(after, header)].astype(np.int16)
    lost = grey_part(before, header)
    if not len(filled) or lost < SMALL_PART:
        return
    differs = np.abs(filled - np.median(filled, axis=0)).max(axis=1) > 2
    if differs.mean() > SMALL_PART:
        part = share_text(lost, 0)
        raise ImageFault(f"is a damaged JPEG (a run of {stop - hole} zero bytes; about {part} of the image is lost)")


def _scan_start(data: bytes) -> int:
    return next(end for marker, _, end in jpeg_segments(data) if marker == 0xDA)


def _frame(data: bytes) -> tuple[int, int]:
    """Return the marker of the frame and the offset of its content."""
    return next((marker, start) for marker, start, _ in jpeg_segments(data) if marker in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA))


def _is_progressive(data: bytes) -> bool:
    return _frame(data)[0] in (0xC2, 0xCA)


def _restart_interval(data: bytes) -> int:
    intervals = [data[start : start + 2] for marker, start, _ in jpeg_segments(data) if marker == 0xDD]
    return int.from_bytes(intervals[-1], "big") if intervals else 0


def _blocks(data: bytes) -> int:
    """Return the number of minimum coded units (MCU) in a scan of all components."""
    _, start = _frame(data)
    _, height, width, count = struct.unpack_from(">BHHB", data, start)
    factors = [data[start + 7 + 3 * i] for i in range(count)] if count > 1 else [0x11]
    across, down = 8 * max(factor >> 4 for factor in factors), 8 * max(factor & 15 for factor in factors)
    return int(-(-width // across) * -(-height // down))


@dataclass(frozen=True)
class _Scan:
    """A scan of a progressive JPEG: its offset, components, coefficients and bits (T.81, B.2.3)."""

    start: int
    components: bytes
    coefficients: range
    high: int
    low: int


def _scans(data: bytes) -> list[_Scan]:
    scans = []
    position = data.rfind(b"\xff\xda", 0, _scan_start(data))
    while position >= 0 and position + 5 < len(data):
        count = data[position + 4]
        tail = position + 5 + 2 * count
        if 1 <= count <= 4 and tail + 3 <= len(data):
            bits = data[tail + 2]
            coefficients = range(data[tail], data[tail + 1] + 1)
            scans.append(_Scan(position, data[position + 5 : tail : 2], coefficients, bits >> 4, bits & 15))
        position = data.find(b"\xff\xda", position + 2)
    return scans


def _scans_are_complete(data: bytes) -> bool:
    """Tell whether the file has at least the start of the scans with the lowest bit of every coefficient."""
    if not _is_progressive(data):
        return True
    _, frame = _frame(data)
    components = set(data[frame + 6 : frame + 6 + 3 * data[frame + 5] : 3])
    done = {(part, k) for scan in _scans(data) if scan.low == 0 for part in scan.components for k in scan.coefficients}
    return len(done) >= 64 * len(components)


def _lost_in_scans(data: bytes, header: Header, pixels: Pixels) -> float:
    """Return the fraction of a progressive JPEG that is lost: 1 if a scan with coarse detail is damaged.

    An undamaged scan of fine detail changes pixels little. If such a scan is damaged, a pixel counts as lost if this
    scan and later scans change it much.
    """
    scans = _scans(data)
    brightness = data[_frame(data)[1] + 6]
    for scan, following in zip(scans, [*scans[1:], None], strict=True):
        end = following.start if following is not None else len(data)
        if not _is_clean(data[:end] + _END, header):
            if scan.high == 0 and brightness in scan.components:
                return 1.0
            coarse = decode_jpeg(data[: scan.start] + _END, header)
            change = cv2.absdiff(pixels, coarse).max(axis=2)
            return float(np.count_nonzero(change > _VISIBLE) / change.size)
    return 0.0
