"""JSON and YAML as people write them, read by one strict set of rules into the types of JSON.

A text is read as JSON, else as YAML with the scalars of the core schema of YAML 1.2: ``1e-3`` is a number, ``yes``,
``1:30`` and ``2024-01-01`` are texts. Tags, anchors and aliases, duplicate keys, several documents, and whole numbers
with leading zeros, which are octal for other programs, are refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

import yaml

from kubeyolo.documents import Refused, whole_number, without_twins
from kubeyolo.errors import InputError, one_line

LONGEST = 100_000
"""Largest number of characters in a text."""

LONGEST_LIST = 500_000
"""Largest number of characters in YAML with the names of classes; reading as many takes a few seconds."""

DEEPEST = 50
"""Largest depth of nested sections."""

_SHOWN = 200
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"[-+]?0[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?(Infinity|\.inf|\.Inf|\.INF)|NaN|\.nan|\.NaN|\.NAN")

_IN_REFERENCES = ("while scanning an alias", "while scanning an anchor")
"""What PyYAML was doing when it met a sign that cannot be in the name of an anchor or alias, as in ``*.bias``."""

_NAMES: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def read_text(text: str, what: str) -> Any:
    """Return the value of a JSON or YAML text: mappings with texts as keys, lists, texts, numbers, booleans or None.

    Args:
        text: The text; an empty text is None.
        what: Origin of the text, for errors.

    Raises:
        InputError: The text is not JSON or YAML, is too long, or contains something that is refused.
    """
    if len(text) > LONGEST:
        raise InputError(f"{what}: too long: {len(text)} characters, the limit is {LONGEST}")
    try:
        return _checked(_read(text))
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"{what}: not JSON or YAML: {one_line(_reason(error), _SHOWN)}") from error


def read_yaml_texts(text: str, what: str) -> Any:
    """Return the value of a YAML text whose scalars all stay texts: ``no`` is a name, ``007`` is not 7; null is None.

    Raises:
        InputError: As :func:`read_text`.
    """
    return _yaml(text, what, lambda loader: loader.get_single_data())


def compose_yaml(text: str, what: str) -> yaml.Node | None:
    """Return the nodes of a YAML text, which know their lines; None for an empty text.

    Raises:
        InputError: As :func:`read_text`.
    """
    node: yaml.Node | None = _yaml(text, what, lambda loader: loader.get_single_node())
    return node


def plain_scalar(text: str) -> Any:
    """Return the value of a scalar without quotes: None, a boolean, a number, or the text itself.

    Raises:
        ValueError: The scalar is infinite, NaN, too large, or a whole number with leading zeros.
    """
    if text in _NAMES:
        return _NAMES[text]
    if _NOT_FINITE.fullmatch(text):
        _refuse_constant(text)
    if _OCTAL.fullmatch(text):
        shown = f"{text[:40]} has leading zeros, as octal numbers have"
        raise Refused(f"{shown}; write {_decimal(text)}, or put it in quotes")
    if _INT.fullmatch(text):
        return whole_number(text)
    return _finite(text) if _FLOAT.fullmatch(text) else text


def _read(text: str) -> Any:
    try:
        return json.loads(
            text,
            object_pairs_hook=without_twins,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=whole_number,
        )
    except Refused:
        raise
    except ValueError:
        return _Loader(text).get_single_data()


def _yaml(text: str, what: str, read: Callable[[_TextLoader], Any]) -> Any:
    if len(text) > LONGEST_LIST:
        raise InputError(f"{what}: too long: {len(text)} characters, the limit is {LONGEST_LIST}")
    try:
        return read(_TextLoader(text))
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"{what}: not YAML: {one_line(_reason(error), _SHOWN)}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise Refused(f"{name} is not a finite number")


def _decimal(text: str) -> str:
    return "-" * text.startswith("-") + (text[:40].lstrip("+-0") or "0")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Refused(f"{one_line(text, 80)} is too large")
    return value


def _checked(value: Any, depth: int = 0) -> Any:
    """Return a value whose texts can be written as UTF-8: each pair of surrogates is replaced by its character."""
    if isinstance(value, str):
        return _characters(value)
    if depth > DEEPEST:
        raise _too_deep()
    if isinstance(value, dict):
        return without_twins([(_characters(key), _checked(each, depth + 1)) for key, each in value.items()])
    return [_checked(each, depth + 1) for each in value] if isinstance(value, list) else value


def _characters(text: str) -> str:
    if text.isascii():
        return text
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise Refused(f"{text[:40]!r} has half of a surrogate pair, which is not a character") from error


def _too_deep() -> Refused:
    return Refused(f"nested more than {DEEPEST} deep")


class _Loader(yaml.SafeLoader):
    """Reads YAML without tags, anchors and aliases; scalars by :func:`plain_scalar`."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - this turns off PyYAML's resolvers

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return a node, after checking its event."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise Refused(_no_references(event.start_mark))
        if event.tag is not None:
            raise Refused(f"tags such as {event.tag[:40]!r} are not supported{_place(event)}; put text in quotes")
        if self._depth > DEEPEST + 1:
            raise _too_deep()
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(node, yaml.MappingNode):
            _refuse_twins(node)
        return node

    def plain_or_quoted(self, node: yaml.ScalarNode) -> Any:
        """Return the value of a scalar."""
        return plain_scalar(node.value) if node.style is None else node.value

    def mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        """Return a mapping; its keys are texts and are not converted to other types."""
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}

    def sequence(self, node: yaml.SequenceNode) -> list[Any]:
        """Return a list."""
        return [self.construct_object(each, deep=True) for each in node.value]


class _TextLoader(_Loader):
    """Reads all scalars as texts; an absent value and ``null`` as None."""

    def plain_or_quoted(self, node: yaml.ScalarNode) -> Any:
        """Return the text of a scalar."""
        return None if node.style is None and _NAMES.get(node.value, node) is None else node.value


def _refuse_twins(node: yaml.MappingNode) -> None:
    keys = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise Refused(f"a key must be a text, not a list or a mapping{_place(key)}")
        if key.value in keys:
            raise Refused(f"the key {one_line(key.value, 80)!r} is given twice{_place(key)}")
        keys.add(key.value)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return str(_too_deep())
    if isinstance(error, yaml.scanner.ScannerError) and error.context in _IN_REFERENCES:
        return _no_references(error.context_mark)
    mark = getattr(error, "problem_mark", None)
    return f"{getattr(error, 'problem', '')} (line {mark.line + 1}, column {mark.column + 1})" if mark else str(error)


def _no_references(mark: Any) -> str:
    return f"anchors and aliases (& and *) are not supported{_at(mark)}; put text in quotes"


def _place(part: Any) -> str:
    return _at(part.start_mark)


def _at(mark: Any) -> str:
    return f" (line {mark.line + 1}, column {mark.column + 1})"


for _kind in (_Loader, _TextLoader):
    _kind.add_constructor(yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG, _kind.plain_or_quoted)
    _kind.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _kind.mapping)
    _kind.add_constructor(yaml.resolver.BaseResolver.DEFAULT_SEQUENCE_TAG, _kind.sequence)
