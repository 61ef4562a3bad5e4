from __future__ import annotations

import collections
import pathlib
import pickle
from typing import Any

import pytest

from kubeyolo.errors import InputError
from kubeyolo.weights.pickle_tree import Global, Pairs, Record, attribute, get, items, read_pickle
from tests.weights.torch_writer import Call, Name, New, pickled


class Thing:
    def __init__(self) -> None:
        self.names = ["a", "b"]
        self.depth = 0.33


def runs_nothing(*_: Any) -> None:
    raise AssertionError("a pickled function was called")


class Attack:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = (function, arguments)

    def __reduce__(self) -> Any:
        return self.parts


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_are_read_as_pickle_reads_them(protocol: int) -> None:
    value = [
        None,
        True,
        False,
        0,
        -1,
        255,
        65536,
        1 << 70,
        1.5,
        "text ä",
        "",
        (),
        (1,),
        (1, 2),
        (1, 2, 3),
        (1, 2, 3, 4),
    ]
    assert read_pickle(pickle.dumps(value, protocol), "f").root == value


@pytest.mark.parametrize("protocol", range(6))
def test_dictionaries_objects_and_shared_values_are_read(protocol: int) -> None:
    shared = [1, 2]
    tree = read_pickle(pickle.dumps({"thing": Thing(), "x": shared, "y": shared, 3: "number"}, protocol), "f")
    thing = get(tree.root, "thing")
    assert isinstance(thing, Record)
    assert attribute(thing, "names") == ["a", "b"]
    assert attribute(thing, "depth") == 0.33
    assert get(tree.root, "x") is get(tree.root, "y")
    assert [name for name, _ in items(tree.root)] == ["thing", "x", "y"]


def test_unknown_classes_are_inert_records() -> None:
    tree = read_pickle(pickled(New(Name("models.yolo", "Model"), {"nc": 80})), "f")
    assert tree.root.maker == Global("models.yolo", "Model")
    assert attribute(tree.root, "nc") == 80
    assert tree.calls == []


def test_known_data_types_are_kept_as_calls() -> None:
    value = {"order": collections.OrderedDict(a=1), "path": pathlib.PurePosixPath("x"), "set": {1}}
    tree = read_pickle(pickle.dumps(value, 2), "f")
    assert dict(items(get(tree.root, "order"))) == {"a": 1}
    assert {str(call.maker) for call in tree.calls} == {
        "collections.OrderedDict",
        "pathlib.PurePosixPath",
        "builtins.set",
    }


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "name"),
    [(eval, "builtins.eval"), (exec, "builtins.exec"), (getattr, "builtins.getattr"), (runs_nothing, "runs_nothing")],
)
def test_calls_of_unknown_functions_are_refused_by_name(protocol: int, function: Any, name: str) -> None:
    attack = pickle.dumps({"deep": [(Attack(function, "1"),)]}, protocol)
    with pytest.raises(InputError, match=rf"^f: its pickle calls or names .*{name}.*nothing was run"):
        read_pickle(attack, "f")


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(X\x02\x00\x00\x00idtR.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.",
        b"(X\x02\x00\x00\x00idios\nsystem\n.",
        b"(cos\nsystem\nX\x02\x00\x00\x00ido.",
        b"cos\nsystem\nq\x000h\x00(X\x02\x00\x00\x00idtR.",
        b"\x80\x04\x8c\x13torch.serialization\x8c\x09os.system\x93\x8c\x02id\x85R.",
        b"cos\nsystem\n)\x81.",
        b"cos\nsystem\n.",
        b"ctorch.storage\n_load_from_bytes\n(X\x02\x00\x00\x00idtR.",
    ],
    ids=["reduce", "stack-global", "inst", "obj", "memo", "dotted", "newobj", "named-only", "nested-load"],
)
def test_every_way_to_reach_a_function_is_refused(program: bytes) -> None:
    with pytest.raises(InputError, match=r"os\.system|posix\.system|_load_from_bytes"):
        read_pickle(program, "f")


def test_a_call_within_the_state_of_an_object_is_refused() -> None:
    inner = Call(Name("os", "system"), ("id",))
    with pytest.raises(InputError, match=r"calls or names os\.system"):
        read_pickle(pickled(New(Name("models.yolo", "Model"), {"x": {"y": [inner]}})), "f")


def test_the_result_of_a_call_cannot_be_called() -> None:
    program = b"ccollections\nOrderedDict\n)R)R."
    with pytest.raises(InputError, match=r"^f: its pickle is damaged \(something that has no name is called\); get "):
        read_pickle(program, "f")


@pytest.mark.parametrize(
    "program",
    [b"", b"\x80\x02", b"}", b"R.", b"h\x05.", b"(.", b"t.", b"\x80\x02N}u.", b"Na.", b"Nb.", b"\x82\x01.", b"q\x00."],
)
def test_damaged_pickles_are_refused(program: bytes) -> None:
    with pytest.raises(InputError, match="^f: its pickle is damaged"):
        read_pickle(program, "f")


def test_truncation_anywhere_is_refused() -> None:
    whole = pickle.dumps({"a": [1, "two", (3.0, Thing())]}, 2)
    for length in range(len(whole)):
        with pytest.raises(InputError, match=r"^f: its pickle is damaged \(.*\); get the file again$"):
            read_pickle(whole[:length], "f")


def test_deep_and_circular_structures_are_read_without_recursion() -> None:
    deep = b"\x80\x02)" + b"\x85" * 200_000 + b"."
    assert isinstance(read_pickle(deep, "f").root, tuple)
    circular = b"\x80\x02]q\x00h\x00a."
    root = read_pickle(circular, "f").root
    assert root[0] is root
    key = b"\x80\x02})" + b"\x85" * 200_000 + b"Ns."
    assert isinstance(read_pickle(key, "f").root, Pairs)
