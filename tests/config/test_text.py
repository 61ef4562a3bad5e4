"""Texts of people: JSON's types from JSON or YAML, and one line for all that is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kubeyolo.config.text import (
    DEEPEST,
    LONGEST,
    LONGEST_LIST,
    compose_yaml,
    plain_scalar,
    read_text,
    read_yaml_texts,
)
from kubeyolo.errors import InputError

LEVELS = "bcdefghi"
BOMB = "a: &a [x, x]\n" + "".join(f"{name}: &{name} [{', '.join([f'*{chr(ord(name) - 1)}'] * 9)}]\n" for name in LEVELS)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# a comment", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("10", 10),
        ("-7", -7),
        ("1e-3", 0.001),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("yes", "yes"),
        ("off", "off"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("'010'", "010"),
        ('"1e-3"', "1e-3"),
        ("a: |\n  010\n", {"a": "010\n"}),
        ("{a: [1, b], 2: no}", {"a": [1, "b"], "2": "no"}),
        ('{"a": [1, 2.5, null, true, "x"]}', {"a": [1, 2.5, None, True, "x"]}),
        ("<<: {a: 1}", {"<<": {"a": 1}}),
        ("\ufeffa: 1", {"a": 1}),
        ("key: 😀", {"key": "😀"}),
        (r'{"key": "\ud83d\ude00"}', {"key": "😀"}),
        (r'{key: "\ud83d\ude00"}', {"key": "😀"}),
    ],
)
def test_texts_have_the_types_of_json(text: str, value: Any) -> None:
    found = read_text(text, "a text")
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", "line 1, column 5"),
        ("a: b: c", "mapping values are not allowed here"),
        ("a: 1\na: 2", "the key 'a' is given twice"),
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
        ("{1: a, '1': b}", "the key '1' is given twice"),
        ("NaN", "NaN is not a finite number"),
        ('{"a": -Infinity}', "-Infinity is not a finite number"),
        ("a: .inf", ".inf is not a finite number"),
        ("1e999", "1e999 is too large"),
        ("1" * 5000, "is too large"),
        ("010", "010 has leading zeros, as octal numbers have; write 10, or put it in quotes"),
        ("a: -007", "write -7"),
        (f'{{"a": {"1" * 5000}}}', "is too large"),
        ("!!set {a}", "tags such as 'tag:yaml.org,2002:set' are not supported (line 1, column 1)"),
        ("a: !!python/object/apply:os.getcwd []", "tags such as"),
        ("!!binary aGk=", "tags such as"),
        ("! x", "tags such as"),
        ("a: &b 1", "anchors and aliases"),
        ("a: *b", "anchors and aliases"),
        (BOMB, "anchors and aliases"),
        ("a: 1\n---\nb: 2", "another document"),
        ("? [a]\n: b", "a key must be a text"),
        ('"\\UFFFFFFFF"', ""),
        (r'"\ud800"', "half of a surrogate pair"),
        ("\x00", ""),
        ("[" * (DEEPEST + 2) + "]" * (DEEPEST + 2), f"nested more than {DEEPEST} deep"),
        ("{a: " * (DEEPEST + 2) + "1" + "}" * (DEEPEST + 2), f"nested more than {DEEPEST} deep"),
        ("- " * 5000 + "a", f"nested more than {DEEPEST} deep"),
        ("[" * LONGEST, f"nested more than {DEEPEST} deep"),
        ("x" * (LONGEST + 1), f"the limit is {LONGEST}"),
    ],
)
def test_all_else_is_refused_at_once_in_one_short_line(text: str, reason: str) -> None:
    start = time.process_time()
    with pytest.raises(InputError) as refused:
        read_text(text, "the field x")
    message = str(refused.value)
    assert message.startswith(("the field x: not JSON or YAML: ", "the field x: too long: ")) and reason in message
    assert "\n" not in message and len(message) < 300
    assert time.process_time() - start < 2


def test_as_much_as_is_allowed_is_read() -> None:
    deep = "[" * DEEPEST + "]" * DEEPEST
    assert read_text(deep, "a text") == read_text(deep + " # YAML", "a text") == json.loads(deep)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    # Surrogates are no characters.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES, st.booleans())
def test_what_json_writes_is_read_again(value: Any, ascii_alone: bool) -> None:
    assert read_text(json.dumps(value, ensure_ascii=ascii_alone), "a text") == value


@given(st.text(st.sampled_from(list("ab:-?[]{},#&*!|>'\"%@`~ \n\t0179.e+_\\uxU😀\u0085\ud800")), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        value = read_text(text, "a text")
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert read_text(json.dumps(value), "a text") == value


@given(st.integers(-(2**60), 2**60))
def test_whole_numbers_are_decimal(value: int) -> None:
    assert plain_scalar(f"{value:+d}") == value == read_text(yaml.safe_dump(value), "a text")


def test_texts_of_yaml_stay_texts() -> None:
    text = "names: [no, 007, 1:30, 1e3]\nnc: 4\npath:\nval: ~\n"
    expected = {"names": ["no", "007", "1:30", "1e3"], "nc": "4", "path": None, "val": None}
    assert read_yaml_texts(text, "data.yaml") == expected


@pytest.mark.parametrize("read", [read_yaml_texts, compose_yaml])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "anchors and aliases"),
        ("names: [a]\nnames: [b]", "the key 'names' is given twice (line 2, column 1)"),
        ("names: !!python/name:os.system", "tags such as"),
        ("[" * 60, f"nested more than {DEEPEST} deep"),
        ("x" * (LONGEST_LIST + 1), "too long"),
        ("a: b: c", "(line 1, column 5)"),
    ],
)
def test_names_in_yaml_are_read_by_the_same_rules(read: Callable[[str, str], Any], text: str, reason: str) -> None:
    with pytest.raises(InputError) as refused:
        read(text, "data.yaml")
    assert str(refused.value).startswith("data.yaml: ") and reason in str(refused.value)
