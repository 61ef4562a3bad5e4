"""Pickles read as inert data: nothing is imported, no class is instantiated, no function is called.

The opcodes of a pickle are a program for a stack machine. Here each opcode only makes plain nodes: a call of
a function becomes a record of the function's name and arguments. Functions that are not known to belong to
checkpoints, and names of Python's own library that are not plain data, are refused; the message names them.
"""

from __future__ import annotations

import pickletools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kubeyolo.errors import InputError, one_line

MAX_OPCODES = 1_000_000
"""Largest number of operations of a pickle, several times that of a large detector with its optimizer."""

_MOST_NAME = 200
"""Characters of the longest name of a module, class or function."""


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or function."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Pairs:
    """A dictionary; keys may be any nodes, so only keys that are text are compared."""

    pairs: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Record(Pairs):
    """The result that a call of a function or of a class would have.

    Attributes:
        maker: The function or class.
        arguments: Its positional arguments.
        pairs: Items set on the result.
        members: Elements appended or added to the result.
        state: State set on the result; for most objects the :class:`Pairs` of its attributes.
        called: Whether ``maker`` would have been called, rather than instantiated.
    """

    maker: Global = Global("builtins", "object")
    arguments: Any = ()
    members: list[Any] = field(default_factory=list)
    state: Any = None
    called: bool = False


@dataclass(eq=False, slots=True)
class PersistentId:
    """A reference to something outside the pickle."""

    value: Any


@dataclass(frozen=True)
class PickleTree:
    """The root of a pickle, and every call in it in the order of the pickle."""

    root: Any
    calls: list[Record]


# Protocol 2 writes the names of Python 2.
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}

_DATA = {
    "builtins": [
        *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "range"),
        *("set", "slice", "str", "tuple", "NoneType"),
    ],
    "collections": ["Counter", "OrderedDict", "defaultdict", "deque"],
    "argparse": ["Namespace"],
    "types": ["SimpleNamespace"],
    "datetime": ["date", "datetime", "time", "timedelta", "timezone"],
    "pathlib": ["Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"],
    "_codecs": ["encode"],
    "copyreg": ["_reconstructor"],
    "uuid": ["UUID"],
}
_NUMPY = ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
_KNOWN_CALLS = frozenset(
    [f"{module}.{name}" for module, names in _DATA.items() for name in names]
    + [f"numpy.{core}.{name}" for core in ("core", "_core") for name in _NUMPY]
    + ["numpy.dtype", "numpy.ndarray"]
    + ["torch.Size", "torch.device", "torch._tensor._rebuild_from_type_v2"]
    + [
        f"torch._utils.{name}"
        for name in (
            "_rebuild_tensor",
            "_rebuild_tensor_v2",
            "_rebuild_tensor_v3",
            "_rebuild_parameter",
            "_rebuild_parameter_with_state",
        )
    ]
)


class _Damaged(Exception):
    """The reason why the bytes are not a valid pickle."""


_MARK = object()


def read_pickle(data: bytes, place: str) -> PickleTree:
    """Read a pickle as a tree of :class:`Pairs` for dictionaries, lists, tuples, plain values and :class:`Record`.

    Args:
        data: The pickle, protocol 0 to 5.
        place: Name of its file, for errors.

    Raises:
        InputError: The pickle is damaged, or names a function that is not known to belong to checkpoints.
    """
    machine = _Machine()
    damage = ""
    try:
        machine.run(data)
    except (_Damaged, ValueError, IndexError, TypeError, OverflowError, AttributeError, MemoryError) as error:
        damage = str(error) or type(error).__name__
    if machine.refused:
        shown = ", ".join(one_line(repr(name)[1:-1], _MOST_NAME) for name in list(machine.refused)[:5])
        raise InputError(
            f"{place}: its pickle calls or names {shown}, which no checkpoint needs; nothing was run or built. "
            "Do not trust this file; if it is your own, save the model's state_dict() alone"
        )
    if damage:
        raise InputError(f"{place}: its pickle is damaged ({one_line(damage, _MOST_NAME)}); get the file again")
    return PickleTree(machine.root, machine.calls)


def get(node: Any, key: str) -> Any:
    """Return the value of a text key of a dictionary node, or None if it is missing; of equal keys the last is used."""
    found = None
    for name, value in items(node):
        if name == key:
            found = value
    return found


def items(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield the pairs of a dictionary node whose keys are text."""
    if isinstance(node, Pairs):
        for key, value in node.pairs:
            if isinstance(key, str):
                yield key, value


def attribute(node: Any, name: str) -> Any:
    """Return an attribute of an object, or None if it is missing."""
    if not isinstance(node, Record):
        return None
    # The state of an object with slots is a tuple: a dictionary of attributes, and a dictionary of slots.
    states = node.state if isinstance(node.state, tuple) else (node.state,)
    return next((value for value in (get(state, name) for state in states) if value is not None), None)


class _Machine:
    """The stack machine that evaluates pickles, on inert nodes."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.calls: list[Record] = []
        self.refused: dict[str, None] = {}
        self.root: Any = None

    def run(self, data: bytes) -> None:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count > MAX_OPCODES:
                raise _Damaged(f"more than {MAX_OPCODES} operations")
            if opcode.name in _LITERALS:
                self.stack.append(argument)
            elif opcode.name == "STOP":
                self.root = self.pop()
            elif opcode.name not in _IGNORED:
                action = _ACTIONS.get(opcode.name)
                if action is None:
                    raise _Damaged(f"operation {opcode.name} is not supported")
                action(self, argument)

    def pop(self) -> Any:
        node = self.stack.pop()
        if node is _MARK:
            raise _Damaged("a value is missing")
        return node

    def pop_to_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise _Damaged("a mark is missing")

    def top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise _Damaged("a value is missing")
        return self.stack[-1]

    def push_global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise _Damaged("a name is not text")
        if len(module) + len(name) > _MOST_NAME:
            raise _Damaged(f"a name has {len(module) + len(name)} characters, at most {_MOST_NAME} are allowed")
        found = Global(_RENAMED.get(module, module), name)
        if found.module.split(".")[0] in sys.stdlib_module_names and str(found) not in _KNOWN_CALLS:
            self.refused[str(found)] = None
        self.stack.append(found)

    def make(self, maker: Any, arguments: Any, called: bool) -> None:
        if not isinstance(maker, Global):
            raise _Damaged("something that has no name is called")
        if called and str(maker) not in _KNOWN_CALLS:
            self.refused[str(maker)] = None
        record = Record(maker=maker, arguments=arguments, called=called)
        if called:
            self.calls.append(record)
        self.stack.append(record)

    def remember(self, key: int) -> None:
        self.memo[key] = self.top()

    def recall(self, key: int) -> None:
        if key not in self.memo:
            raise _Damaged(f"memo {key} is empty")
        self.stack.append(self.memo[key])

    def put_pairs(self, values: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, Pairs) or len(values) % 2:
            raise _Damaged("items are set on a value that is not a dictionary")
        target.pairs.extend(zip(values[::2], values[1::2], strict=True))

    def put_members(self, values: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Record):
            target.members.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise _Damaged("elements are added to a value that is not a list")

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if not isinstance(target, Record):
            raise _Damaged("state is set on a value that is not an object")
        target.state = state


# Operations whose argument is the value itself.
_TEXTS = frozenset(
    ["STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"]
)
_NUMBERS = frozenset(["BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"])
_BYTES = frozenset(["BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"])
_LITERALS = _TEXTS | _NUMBERS | _BYTES
_IGNORED = frozenset(["PROTO", "FRAME"])


def _two_names(machine: _Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push_global(module, name)


def _split_names(machine: _Machine, argument: str) -> None:
    # pickletools gives the two lines of GLOBAL and INST with a space between them.
    module, _, name = argument.partition(" ")
    machine.push_global(module, name)


def _reduce(machine: _Machine) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.make(function, arguments, called=True)


def _new_object(machine: _Machine, named: bool) -> None:
    if named:
        machine.pop()
    arguments, cls = machine.pop(), machine.pop()
    machine.make(cls, arguments, called=False)


def _instance(machine: _Machine, argument: str) -> None:
    arguments = machine.pop_to_mark()
    _split_names(machine, argument)
    machine.make(machine.pop(), tuple(arguments), called=True)


def _object(machine: _Machine) -> None:
    maker, *arguments = machine.pop_to_mark()
    machine.make(maker, tuple(arguments), called=True)


def _dictionary(machine: _Machine) -> None:
    values = machine.pop_to_mark()
    machine.stack.append(Pairs())
    machine.put_pairs(values)


def _tuple(machine: _Machine, length: int) -> None:
    values = [machine.pop() for _ in range(length)]
    machine.stack.append(tuple(reversed(values)))


_ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "MARK": lambda m, _: m.stack.append(_MARK),
    "POP": lambda m, _: m.stack.pop(),
    "POP_MARK": lambda m, _: m.pop_to_mark(),
    "DUP": lambda m, _: m.stack.append(m.top()),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), lambda m, _: m.stack.append([])),
    "EMPTY_DICT": lambda m, _: m.stack.append(Pairs()),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "TUPLE1": lambda m, _: _tuple(m, 1),
    "TUPLE2": lambda m, _: _tuple(m, 2),
    "TUPLE3": lambda m, _: _tuple(m, 3),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_to_mark())),
    "LIST": lambda m, _: m.stack.append(m.pop_to_mark()),
    "FROZENSET": lambda m, _: m.stack.append(tuple(m.pop_to_mark())),
    "DICT": lambda m, _: _dictionary(m),
    "SETITEM": lambda m, _: m.put_pairs([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: m.put_pairs(m.pop_to_mark()),
    "APPEND": lambda m, _: m.put_members([m.pop()]),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda m, _: m.put_members(m.pop_to_mark())),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.remember),
    "MEMOIZE": lambda m, _: m.remember(len(m.memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.recall),
    "GLOBAL": _split_names,
    "STACK_GLOBAL": lambda m, _: _two_names(m),
    "REDUCE": lambda m, _: _reduce(m),
    "INST": _instance,
    "OBJ": lambda m, _: _object(m),
    "NEWOBJ": lambda m, _: _new_object(m, named=False),
    "NEWOBJ_EX": lambda m, _: _new_object(m, named=True),
    "BUILD": lambda m, _: m.build(),
    "PERSID": lambda m, value: m.stack.append(PersistentId(value)),
    "BINPERSID": lambda m, _: m.stack.append(PersistentId(m.pop())),
}
