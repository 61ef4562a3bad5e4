"""Text files as people save them: UTF-8 with or without a byte order mark, UTF-16 with a mark; all line endings."""

from __future__ import annotations

import codecs
from pathlib import Path

from kubeyolo.errors import InputError, one_line
from kubeyolo.file_kinds import kind_of, placeholder_kind
from kubeyolo.regular_files import CLASSES_SIZE, read_regular

# The mark of UTF-32-LE starts with that of UTF-16-LE, so it is tested first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_UNMARKED = "UTF-16 text without its byte order mark; save it as UTF-8"
_SHOWN = 40
_HEAD = 1024


def read_text_file(path: Path, what: str = "", most: int = CLASSES_SIZE) -> str:
    r"""Return the text of a file, with the line ending ``\n`` and without a byte order mark.

    Args:
        path: The file.
        what: Kind of the file, such as "configuration", for error messages.
        most: Largest size in bytes.

    Raises:
        InputError: The file is not a regular file, is too large, cannot be read, is not text, or has a different
            encoding; the message has the line.
    """
    name = f"{what} {path}".strip()
    try:
        data = read_regular(path, most)
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error
    return decode_text(data, name)


def decode_text(data: bytes, what: str) -> str:
    r"""Return bytes as text, with the line ending ``\n`` and without a byte order mark.

    Args:
        data: UTF-8, or UTF-16 or UTF-32 with a byte order mark.
        what: Start of the error message, which names the file.

    Raises:
        InputError: The bytes are not text, or have a different encoding.
    """
    other = placeholder_kind(data)
    if other is not None:
        raise InputError(f"{what}: is {other}; give the file itself")
    mark, encoding = mark_of(data) or (b"", "utf-8")
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{what}: {_reason(data, len(mark), encoding, error)}") from error
    if "\0" in text:
        raise InputError(f"{what}: {_with_zeros(data, text)}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def mark_of(data: bytes) -> tuple[bytes, str] | None:
    """Return the byte order mark at the start of bytes and its encoding; None if there is no mark."""
    return next(((mark, encoding) for mark, encoding in _MARKS if data.startswith(mark)), None)


def _reason(data: bytes, start: int, encoding: str, error: UnicodeDecodeError) -> str:
    """Return why bytes cannot be decoded, the position, and what to do."""
    place = start + error.start
    if encoding != "utf-8":
        name = encoding[:6].upper()
        return (
            f"starts with the byte order mark of {name}, but is not {name} "
            f"(byte {place + 1} of {len(data)}); save it as UTF-8"
        )
    kind = kind_of(data)
    before = data[start:place]
    if kind is None and _is_utf_16(data):
        return _UNMARKED
    if b"\0" in data[:_HEAD] or kind is not None:
        return f"not text: it is {kind or f'a binary file of {len(data)} bytes'}; give a text file"
    line_start = max(before.rfind(b"\n"), before.rfind(b"\r")) + 1
    line = len(before.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))
    return (
        f"not UTF-8 text: byte 0x{data[place]:02x} in line {line}, at byte {len(before) - line_start + 1} of the line"
        f"{_as_windows(data, start + line_start)}; save it as UTF-8"
    )


def _as_windows(data: bytes, start: int) -> str:
    """Return a line decoded as Windows-1252, in parentheses, or an empty text if that gives no readable text."""
    line = data[start:].replace(b"\r", b"\n").split(b"\n", 1)[0]
    try:
        shown = line.decode("cp1252")
    except UnicodeDecodeError:
        return ""
    return f" ({one_line(shown, _SHOWN)!r} if it is Windows-1252)" if shown.isprintable() else ""


def _with_zeros(data: bytes, text: str) -> str:
    """Return why a text with zero bytes is refused."""
    kind = kind_of(data)
    if kind is None and _is_utf_16(data):
        return _UNMARKED
    line = text[: text.index("\0")].count("\n") + 1
    return f"not text: it is {kind or f'a file with zero bytes, the first in line {line}'}; give a text file"


def _is_utf_16(data: bytes) -> bool:
    """Tell whether bytes are UTF-16 without a byte order mark: every second byte of Latin letters is zero."""
    halves = (data[0::2].count(0), data[1::2].count(0))
    return max(halves) > len(data) // 4 and min(halves) <= len(data) // 40
