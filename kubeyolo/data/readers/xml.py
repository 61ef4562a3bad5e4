"""Reads XML from annotation tools; refuses entities and document types. Error messages name the line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, ParseError
from xml.etree.ElementTree import fromstring as quick_fromstring

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring, iterparse

from kubeyolo.config.text_file import decode_text
from kubeyolo.data.layouts.tree import read_errors, read_file
from kubeyolo.errors import InputError
from kubeyolo.regular_files import ANNOTATIONS_SIZE, LABELS_SIZE, open_regular

_UNSAFE = re.compile(rb"<!(?!--)|\0")
"""Matches a document type, or UTF-16, in which a document type would not be recognized."""

_FAULTS = (ParseError, DefusedXmlException, ValueError, LookupError, RecursionError)


def read_small(path: Path) -> Element:
    """Return the root element of an XML file for one image.

    Raises:
        InputError: The file cannot be read, is too large, is not XML, or has entities.
    """
    data = read_file(path, LABELS_SIZE)
    try:
        # Entities need a document type: without one, the parser in C is equally safe and five times as fast.
        root: Element = fromstring(data, forbid_dtd=True) if _UNSAFE.search(data) else quick_fromstring(data)
    except _FAULTS as error:
        _refuse(path, error)
    return root


def read_large(path: Path, tags: frozenset[str]) -> Iterator[Element]:
    """Yield the complete elements with a tag in ``tags``; each element is cleared before the next element is read.

    Raises:
        InputError: As :func:`read_small`.
    """
    try:
        with read_errors(path), open_regular(path, ANNOTATIONS_SIZE) as file:
            for _, element in iterparse(file, events=("end",), forbid_dtd=True):
                if element.tag in tags:
                    yield element
                    element.clear()
    except _FAULTS as error:
        _refuse(path, error)


def text_at(element: Element, path: str) -> str:
    """Return the text of the element at ``path`` below ``element``, without outer spaces; '' if it is absent."""
    child = element.find(path)
    return (child.text or "").strip() if child is not None else ""


def number_of(where: str, name: str, text: str | None) -> float:
    """Return a text as a number.

    Raises:
        InputError: The text is absent, or not a number.
    """
    try:
        return float(text or "")
    except ValueError:
        what = f"has the {name} {text!r}, which is not a number" if text else f"has no {name}"
        raise InputError(f"{where} {what}; correct it") from None


def whole_or_text(text: str) -> int | str | None:
    """Return a size as a whole number; a text that is not a whole number is returned unchanged, for error messages."""
    try:
        return int(text)
    except ValueError:
        return text or None


def _refuse(path: Path, error: Exception) -> NoReturn:
    if isinstance(error, DefusedXmlException):
        raise InputError(f"{path}: has a document type or entities, which are not supported; remove them") from error
    if "encoding" in str(error) or isinstance(error, LookupError):
        raise InputError(f"{path}: declares an encoding that is not supported ({error}); save it as UTF-8") from error
    # This raises an error that names the line if the file is not UTF-8.
    decode_text(read_file(path, ANNOTATIONS_SIZE), str(path))
    raise InputError(f"{path}: not XML ({error}); export the annotations again") from error
