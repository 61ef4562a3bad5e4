"""Reads JSON that other people or programs may have written: manifests, notes, records, annotations, results.

One set of rules: a size, a depth, no key twice in an object, no number of thousands of digits. Whatever the parser
raises becomes :class:`NotJson` with one line.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel

from kubeyolo.errors import InputError, one_line
from kubeyolo.formats import size_text
from kubeyolo.regular_files import DOCUMENT_SIZE

DEEPEST = 100
"""Largest depth of nested lists and objects."""

_MOST_DIGITS = 400
"""A whole number with more digits is larger than the largest double."""

_SHOWN = 160

_Model = TypeVar("_Model", bound=BaseModel)


class NotJson(InputError):
    """A document is not JSON, or is too deep or too large; ``reason`` says so without the name of the document."""

    def __init__(self, where: str, reason: str, remedy: str = "") -> None:
        super().__init__(f"{where}: {reason}{f'; {remedy}' if remedy else ''}")
        self.reason = reason


class Refused(ValueError):
    """A value that the parser accepts, but that a document may not have."""


def read_json(document: bytes | str, where: str, remedy: str = "", most: int = DOCUMENT_SIZE) -> Any:
    """Return the content of a JSON document.

    Args:
        document: UTF-8, with or without a byte order mark. NaN and Infinity, which Python writes, are read.
        where: The file or URI, for errors.
        remedy: What to do about a damaged document, for errors.
        most: Largest size in bytes, or characters.

    Raises:
        NotJson: The document is not JSON, is nested deeper than :data:`DEEPEST`, is larger than ``most``, or has a key
            twice in one object.
    """
    if len(document) > most:
        raise NotJson(where, f"{size_text(len(document))}, at most {size_text(most)} allowed", remedy)
    try:
        text = document if isinstance(document, str) else document.decode("utf-8-sig")
        value = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=without_twins, parse_int=whole_number)
        _check_depth(value)
    except RecursionError:
        raise NotJson(where, f"nested more than {DEEPEST} deep", remedy) from None
    except MemoryError:
        raise NotJson(where, f"{size_text(len(document))} do not fit in memory", remedy) from None
    except ValueError as error:
        raise NotJson(where, f"not JSON ({one_line(error, _SHOWN)})", remedy) from error
    return value


def read_large_json(document: bytes, where: str, remedy: str = "") -> Any:
    """Return the content of a document with many detections or history rows; a faster parser than :func:`read_json`.

    Of two equal keys in an object the last is used.

    Raises:
        NotJson: As :func:`read_json`; NaN, Infinity and a byte order mark are not JSON here.
    """
    try:
        value = orjson.loads(document)
        _check_depth(value)
    except orjson.JSONDecodeError as error:
        raise NotJson(where, f"not JSON ({one_line(error, _SHOWN)})", remedy) from error
    except MemoryError:
        raise NotJson(where, f"{size_text(len(document))} do not fit in memory", remedy) from None
    except RecursionError:
        raise NotJson(where, f"nested more than {DEEPEST} deep", remedy) from None
    return value


def read_model(document: bytes | str, model: type[_Model], where: str, remedy: str = "") -> _Model:
    """Return a JSON document as a pydantic model.

    Raises:
        NotJson: As :func:`read_json`.
        ValidationError: The document does not follow the schema of the model.
    """
    return model.model_validate(read_json(document, where, remedy))


def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of an object as a mapping; an ``object_pairs_hook`` of JSON.

    Raises:
        Refused: A key is given twice.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        twin, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise Refused(f"the key {one_line(twin, 80)!r} is given twice")
    return values


def whole_number(text: str) -> int:
    """Return a whole number; a ``parse_int`` of JSON.

    Raises:
        Refused: It has more digits than a double can represent.
    """
    if len(text) > _MOST_DIGITS:
        raise Refused(f"{text[:20]}… is too large")
    return int(text)


def _check_depth(value: Any) -> None:
    """Raise a ``RecursionError`` if lists and objects are nested too deep."""
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(DEEPEST):
        if not level:
            return
        level = [each for one in level for each in _inside(one) if isinstance(each, list | dict)]
    if level:
        raise RecursionError


def _inside(value: list[Any] | dict[str, Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value
