"""Converts anchors from the forms in which people write them to their form in the configuration.

The accepted forms are the levels of YOLOv5's YAML files (``[[10,13, 16,30, 33,23], …]``), levels or a list of pairs
(``[[10,13], [16,30], …]``), and the single list of darknet's cfg files (``10,13, 16,30, …``), as lists or as text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from kubeyolo.documents import NotJson, read_json

_BRACKETS = str.maketrans("()", "[]")
_BETWEEN = re.compile(r"[\s,;]+")
_EXPECTED = (
    "expected widths and heights, such as [[10,13, 16,30, 33,23], …] with a list for each level, or a single list"
)


def anchor_lists(value: Any) -> list[list[Any]]:
    """Return anchors as lists of numbers: one list for each level if the value has levels, else a single list.

    The numbers are not checked here; the schema checks them.

    Raises:
        ValueError: The value is not a list, or a list that mixes numbers and lists.
    """
    value = _without_text(value)
    if value is None or (isinstance(value, list | tuple) and not value):
        return []
    if not isinstance(value, list | tuple):
        raise ValueError(_EXPECTED)
    if not any(isinstance(each, list | tuple) for each in value):
        return [list(value)]
    if not all(isinstance(each, list | tuple) and each for each in value):
        raise ValueError(_EXPECTED)
    if all(_is_pair(each) for each in value):
        return [[side for pair in value for side in pair]]
    return [_level(each) for each in value]


def anchors_text(levels: Sequence[Sequence[Sequence[float]]]) -> str:
    """Return anchors (level, anchor, 2) as people write them: ``[[10,13, 16,30], [33,23, 30,61]]``."""
    lists = (", ".join(f"{width:g},{height:g}" for width, height in level) for level in levels)
    return f"[{', '.join(f'[{each}]' for each in lists)}]"


def _level(value: Sequence[Any]) -> list[Any]:
    if all(_is_pair(each) for each in value):
        return [side for pair in value for side in pair]
    if any(isinstance(each, list | tuple) for each in value):
        raise ValueError(_EXPECTED)
    return list(value)


def _is_pair(value: Any) -> bool:
    is_list = isinstance(value, list | tuple) and len(value) == 2
    return is_list and not any(isinstance(each, list | tuple) for each in value)


def _without_text(value: Any) -> Any:
    """Return the value of a text; YAML splits a pair in parentheses into two texts with one parenthesis each."""
    if isinstance(value, list | tuple):
        return [_without_text(each) for each in value]
    if not isinstance(value, str):
        return value
    text = value.strip().translate(_BRACKETS)
    if text.startswith("[") and text.endswith("]") and "," in text:
        try:
            return read_json(text, "anchors")
        except NotJson as error:
            raise ValueError(_EXPECTED) from error
    words = [word for word in _BETWEEN.split(text.strip("[] ")) if word]
    return words[0] if len(words) == 1 else words
