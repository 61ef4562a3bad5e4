"""What a file is, by its first bytes: to name what was given in place of weights or of an image."""

from __future__ import annotations

import re

_ISO_BRANDS = {
    b"heic": "a HEIC image",
    b"heix": "a HEIC image",
    b"hevc": "a HEIC image sequence",
    b"mif1": "a HEIF image",
    b"msf1": "a HEIF image sequence",
    b"avif": "an AVIF image",
    b"avis": "an AVIF image sequence",
    b"jxl ": "a JPEG XL image",
}
_HEADS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs.github.com/spec/", "a pointer of git-lfs, not the file itself"),
    (b"/annex/objects/", "a pointer of git-annex, not the file itself"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"BM", "a BMP image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"II+\0", "a BigTIFF image"),
    (b"MM\0+", "a BigTIFF image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (b"8BPS", "a Photoshop document"),
    (b"v/1\x01", "an OpenEXR image"),
    (b"#?RADIANCE", "a Radiance HDR image"),
    (b"SIMPLE  =", "a FITS image"),
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (such as Keras weights)"),
    (b"\0\x05\x16\x07", "a leftover of macOS (AppleDouble)"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
)
_PAGE = re.compile(rb"\s*(<!doctype html|<html|<head|<\?xml[^>]*>\s*<!doctype html)", re.IGNORECASE)
_SVG = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!DOCTYPE svg[^>]*>\s*)?<svg", re.IGNORECASE | re.DOTALL)


def kind_of(data: bytes) -> str | None:
    """Return what a file is, with its article, or None when it is not known.

    Args:
        data: The first 1024 bytes of the file, or more.
    """
    head = data[:1024]
    text = head.removeprefix(b"\xef\xbb\xbf")
    if _PAGE.match(text):
        return "a web page (HTML), such as one that a download site shows instead of the file"
    if _SVG.match(text):
        return "an SVG drawing"
    if head[:4] == b"RIFF":
        return {b"WEBP": "a WebP image", b"AVI ": "an AVI video"}.get(head[8:12], "a RIFF file")
    if head[4:8] == b"ftyp":
        return _ISO_BRANDS.get(head[8:12], "an MP4 or QuickTime video")
    if head[257:262] == b"ustar":
        return "a tar archive"
    return next((name for start, name in _HEADS if head.startswith(start)), None)
