"""The kind of a file by its first bytes, for errors about files of a wrong kind; suffixes of image files."""

from __future__ import annotations

import re

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff"})
"""Suffixes, in lower case, of image files in the formats that are read."""

UNREAD_IMAGE_SUFFIXES = frozenset(
    {".gif", ".avif", ".heic", ".heif", ".jp2", ".j2k", ".jxl", ".tga", ".psd", ".exr", ".hdr", ".dcm"}
    | {".pbm", ".pgm", ".ppm", ".pnm"}
)
"""Suffixes of image files in formats that are not read: such a file is refused with a message that names its format."""

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
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"ftrt", "a TensorRT engine"),
    (b"ptrt", "a TensorRT engine"),
    (b"RKNN", "an RKNN network, exported for Rockchip"),
    (b"IMOD", "an OM network, exported for Ascend"),
    (b"7767517", "an ncnn network"),
    (b"GGUF", "a GGUF network, such as a language model"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x7fELF", "a program (ELF)"),
    (b"\0\x05\x16\x07", "a leftover of macOS (AppleDouble)"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
)
_DVC = re.compile(rb"(md5: \w+\s+)?(frozen: \w+\s+)?outs:\s+- (md5|hash|size|path|etag): ")
_OPENVINO = re.compile(rb"\s*(<\?xml[^>]*>\s*)?<net\s[^>]*\bversion=", re.IGNORECASE)
_MINDIR = re.compile(rb"\x0a[\x03-\x0a]\d+\.\d+\.\d+\x12")
_PAGE = re.compile(rb"\s*(<!doctype html|<html|<head|<\?xml[^>]*>\s*<!doctype html)", re.IGNORECASE)
_SVG = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!DOCTYPE svg[^>]*>\s*)?<svg", re.IGNORECASE | re.DOTALL)


def kind_of(data: bytes) -> str | None:
    """Return the kind of a file, such as "a web page", or None if it is not known.

    Args:
        data: The first 1024 bytes of the file, or more.
    """
    head = data[:1024]
    text = head.removeprefix(b"\xef\xbb\xbf")
    if _PAGE.match(text):
        return "a web page (HTML), which a download site may send instead of the file"
    if _DVC.match(text):
        return "a pointer of DVC, not the file itself"
    if _SVG.match(text):
        return "an SVG drawing"
    if head[:4] == b"RIFF":
        return {b"WEBP": "a WebP image", b"AVI ": "an AVI video"}.get(head[8:12], "a RIFF file")
    if head[4:8] == b"ftyp":
        return _ISO_BRANDS.get(head[8:12], "an MP4 or QuickTime video")
    if head[257:262] == b"ustar":
        return "a tar archive"
    return next((name for start, name in _HEADS if text.startswith(start)), None) or _network(head)


def placeholder_kind(data: bytes) -> str | None:
    """Return the kind of a text file that replaces the actual file, such as a pointer or a web page; else None.

    Args:
        data: The first 1024 bytes of the file, or more.
    """
    kind = kind_of(data)
    return kind if kind is not None and kind.startswith(("a pointer ", "a web page ")) else None


def _network(head: bytes) -> str | None:
    """Return the kind of an exported network, or None."""
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite network"
    if head[4:5] == b"{" and b'"author": "Ultralytics"' in head:
        return "a TensorRT engine"
    if _OPENVINO.match(head):
        return "an OpenVINO network"
    if _MINDIR.match(head):
        return "a MindIR network"
    # Protocol buffers: a version, then in ONNX the name of the program, its graph, or its sets of operators.
    if len(head) > 3 and head[0] == 0x08 and 0 < head[1] < 0x20:
        if head[2] in (0x3A, 0x42):
            return "an ONNX network"
        if head[2] == 0x12:
            program = head[4 : 4 + head[3]]
            is_text = program.isascii() and program.decode("ascii").isprintable()
            return "an ONNX network" if is_text else "a TensorFlow SavedModel or Core ML network"
    return None
