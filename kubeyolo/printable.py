r"""Makes text from data harmless on a terminal, in a log and in a report: no control characters, one line, bounded.

File names, class names and texts of other programs may hold any character. ``ESC`` moves the cursor or changes the
title of a terminal, ``U+009B`` does the same in one character, and marks of direction show ``exe.png`` as ``gnp.exe``.
Each such character is replaced by its number, such as ``\x1b`` or ``\u202e``.
"""

from __future__ import annotations

import re

_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f"
_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_INVISIBLE = "\u00ad\u200b\u2028\u2029\u2060-\u2064\u206a-\u206f\ufeff\ufff9-\ufffb"
_UNSAFE = re.compile(f"[{_CONTROLS}{_DIRECTIONS}{_INVISIBLE}]")
_NOT_IN_A_NAME = re.compile(f"[\t\n{_CONTROLS}{_DIRECTIONS}{_INVISIBLE}\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_COLORS = re.compile("(\x1b\\[[0-9;]*m)")


def escaped(text: str) -> str:
    r"""Return a text whose control, direction and invisible characters are replaced by their numbers.

    Line feeds and tabs stay. JSON stays valid: outside of ASCII the numbers are JSON's own, ``\u202e``.
    """
    return _UNSAFE.sub(_number, text)


def escaped_but_colors(text: str) -> str:
    """Return a text as :func:`escaped` does, but keep the sequences that set colours on a terminal."""
    if "\x1b" not in text:
        return escaped(text)
    return "".join(part if i % 2 else escaped(part) for i, part in enumerate(_COLORS.split(text)))


def escaped_name(name: str) -> str:
    """Return a name as :func:`escaped` does, with line feeds and tabs as their numbers too."""
    return name if name.isprintable() else _NOT_IN_A_NAME.sub(_number, name)


def has_unsafe_characters(name: str) -> bool:
    """Tell whether a name has control, direction or invisible characters, or half of a surrogate pair."""
    return not name.isprintable() and _NOT_IN_A_NAME.search(name) is not None


def without_unsafe_characters(name: str) -> str:
    """Return a name whose unsafe characters are replaced: white space by a space, others by their numbers."""
    if name.isprintable():
        return name
    return _NOT_IN_A_NAME.sub(_number, " ".join(name.split()))


def _number(match: re.Match[str]) -> str:
    if match[0] in _SHORT:
        return _SHORT[match[0]]
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x20 else f"\\u{code:04x}"
