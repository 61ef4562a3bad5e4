"""JSON documents: what is read, and the one line for everything else."""

from __future__ import annotations

import math

import pytest
from pydantic import BaseModel, ValidationError

from kubeyolo.documents import DEEPEST, NotJson, read_json, read_large_json, read_model


class Point(BaseModel):
    x: int
    y: tuple[int, ...] = ()


def test_documents_are_read_as_python_writes_them() -> None:
    assert read_json(b'\xef\xbb\xbf{"a": [1, 2.5, null]}', "a") == {"a": [1, 2.5, None]}
    assert math.isnan(read_json("NaN", "a"))
    assert read_json("9" * 400, "a") == int("9" * 400)
    assert read_large_json(b'{"a": [1, 2.5, null]}', "a") == {"a": [1, 2.5, None]}
    assert read_model(b'{"x": 1, "y": [2]}', Point, "a") == Point(x=1, y=(2,))
    with pytest.raises(ValidationError):
        read_model(b'{"x": "text"}', Point, "a")


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1", "not JSON"),
        (b'{"a": 1, "a": 2}', "the key 'a' is given twice"),
        (b"9" * 401, "is too large"),
        (b"[" * 100_000, "nested more than 100 deep"),
        (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), "nested more than 100 deep"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "nested more than 100 deep"),
    ],
)
def test_everything_else_is_one_line(document: bytes, reason: str) -> None:
    with pytest.raises(NotJson) as refused:
        read_json(document, "file.json", "write it again")
    message = str(refused.value)
    assert message.startswith("file.json: ") and message.endswith("; write it again")
    assert reason in refused.value.reason and "\n" not in message and len(message) < 300


def test_the_deepest_document_is_read() -> None:
    deepest = b"[" * DEEPEST + b"]" * DEEPEST
    assert read_json(deepest, "a") == read_large_json(deepest, "a")


def test_a_document_has_a_largest_size() -> None:
    with pytest.raises(NotJson, match="12 B, at most 10 B allowed"):
        read_json(b"[1, 2, 3, 4]", "a", most=10)


@pytest.mark.parametrize("document", [b"[" * 100_000, b"[" * 101 + b"]" * 101, b"NaN", b"\xff"])
def test_the_faster_parser_refuses_the_same(document: bytes) -> None:
    with pytest.raises(NotJson, match=r"^a: (not JSON|nested)"):
        read_large_json(document, "a")
