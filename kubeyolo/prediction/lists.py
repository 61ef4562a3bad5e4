"""Names of images from a file or from standard input, one on each line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from kubeyolo.config.text_file import mark_of
from kubeyolo.errors import InputError
from kubeyolo.file_kinds import kind_of
from kubeyolo.regular_files import LIST_SIZE, read_regular

STDIN = "-"

_QUOTES = ('"', "'")
# A list whose first name is BMW.jpg starts like a BMP file, but is text.
_BINARY = re.compile(rb"[\x01-\x08\x0e-\x1f]")
_TEXTS = ("a web page", "an SVG", "a pointer")


def expand_lists(arguments: Iterable[str], stdin: BinaryIO) -> Iterator[str]:
    """Yield names, with ``-`` replaced by the names in standard input and ``@FILE`` by the names in a file.

    If a file is called ``@FILE``, with the ``@``, the file itself is used and nothing is expanded.

    Raises:
        InputError: A list cannot be read, or is not a list of names.
    """
    for argument in arguments:
        if argument == STDIN:
            yield from names_in(stdin.read(), "standard input")
        elif argument.startswith("@") and len(argument) > 1 and not os.path.lexists(argument):
            yield from read_list(argument[1:])
        else:
            yield argument


def read_list(name: str) -> list[str]:
    """Return the names in a file; a name that does not exist here is tried relative to the folder of the file.

    Raises:
        InputError: The file cannot be read, or has no names.
    """
    path = Path(name)
    try:
        data = read_regular(path, LIST_SIZE)
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        raise InputError(f"{name}: the list of images cannot be read: {what}") from error
    return [_in_folder(entry, path.parent) for entry in names_in(data, name, path.parent)]


def names_in(data: bytes, where: str, folder: Path = Path()) -> list[str]:
    """Return the names in a list: separated by newlines, or by NUL as from ``find -print0``.

    Lines that begin with ``#`` are comments, unless a file has this name here or in ``folder``.

    Raises:
        InputError: The list is empty, or is not a list of names.
    """
    kind = kind_of(data)
    if kind and (kind.startswith(_TEXTS) or _BINARY.search(data[:1024])):
        raise InputError(
            f"{where}: is {kind}, not a list of names; give the name of the image file (if a program writes the "
            "image to standard output, store it in a file first)"
        )
    marked = mark_of(data)
    if marked:
        mark, encoding = marked
        try:
            text = data[len(mark) :].decode(encoding)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{where}: starts like {encoding.upper()} text, but cannot be decoded; save it as UTF-8"
            ) from error
    else:
        text = os.fsdecode(data)
    separated = text.split("\0") if "\0" in text else text.split("\n")
    if _BINARY.search(data[:1024]) and not marked:
        raise InputError(f"{where}: is not text; write the names of images, one on each line")
    names = [_unquoted(name.strip("\r")) for name in separated if name.strip()]
    names = [name for name in names if not name.startswith("#") or os.path.lexists(_in_folder(name, folder))]
    if not names:
        raise InputError(f"{where}: has no names of images; write one name on each line")
    return names


def _unquoted(name: str) -> str:
    """Return a name without quotes and spaces around it, unless a file has this name with them."""
    if os.path.lexists(name):
        return name
    bare = name.strip()
    if len(bare) > 2 and bare[0] == bare[-1] and bare[0] in _QUOTES:
        return bare[1:-1]
    return bare


def _in_folder(name: str, folder: Path) -> str:
    """Return a name unchanged, or relative to a folder if it exists only there."""
    if os.path.isabs(name) or "://" in name or os.path.lexists(name):
        return name
    inside = os.path.join(folder, name)
    return inside if os.path.lexists(inside) else name
