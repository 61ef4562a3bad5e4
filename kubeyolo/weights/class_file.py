"""Files of class names, in the forms that annotation and training programs write.

==========================================  ==================================================================
form                                        recognized by
==========================================  ==================================================================
one name on each line, also numbered        used if no other form matches
YAML: ``names`` as a list or by number      the suffix, a line that starts with ``names:``, ``- `` on every line
JSON: the same, or COCO categories          the first character
darknet's ``.data``: ``names = FILE``       a line that starts with ``names =``
label map of TensorFlow: ``item { … }``     the first word
==========================================  ==================================================================
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kubeyolo.config.class_names import clean_name
from kubeyolo.config.text import compose_yaml
from kubeyolo.config.text_file import read_text_file
from kubeyolo.documents import NotJson, read_json
from kubeyolo.errors import InputError, one_line

_MOST_LINES = 6
_NUMBERED = re.compile(r"\[?(\d+)\]?(?:\s*[:;,=|)]\s*(?=\D)|\s*[:;,=|).-]\s+|\s+)(\S.*)")
_MARKED = re.compile(r"\[?(\d+)\]?\s*[:;=|)]\s*((?:\D.*)?)")
_NAMES_KEY = re.compile(r"^[\"']?names[\"']?[ \t]*:", re.MULTILINE)
_DARKNET_KEY = re.compile(r"^[ \t]*names[ \t]*=(.*)$", re.MULTILINE)
_DARKNET_COUNT = re.compile(r"^[ \t]*classes[ \t]*=[ \t]*(\d+)[ \t]*$", re.MULTILINE)
_LABEL_MAP = re.compile(r"\s*(?:#[^\n]*\n\s*)*item\s*:?\s*\{")
_ITEM = re.compile(r"item\s*:?\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
_FIELD = re.compile(r"\b(id|name|display_name)\s*:\s*(?:(-?\d+)|'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\")")
_LIST_KEYS = ("names", "categories", "classes", "labels", "id2label", "label2id")


@dataclass(frozen=True)
class ClassName:
    """A name and its line in the file; the line is 0 if the format has no line for each name."""

    name: str
    line: int = 0


@dataclass(frozen=True)
class ClassFile:
    """The names of a file of classes, cleaned, in the order of the classes.

    Attributes:
        path: The file.
        names: The names.
        notes: Names and numbers that were left out, and other remarks for the user.
        empty_lines: Numbers of the empty lines between names, which were left out.
    """

    path: Path
    names: tuple[ClassName, ...]
    notes: tuple[str, ...] = ()
    empty_lines: tuple[int, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names without their lines."""
        return tuple(name.name for name in self.names)

    def check_number(self, expected: int, network: str) -> None:
        """Refuse a number of names that differs from the number of classes of a network.

        Args:
            expected: The network's number of classes.
            network: Name of the network or of its file, for the error.

        Raises:
            InputError: The numbers differ.
        """
        have = len(self.names)
        if have == expected:
            return
        hint = ""
        if self.empty_lines:
            hint = f" (line {self.empty_lines[0]} is empty)"
        elif have > expected and self.names[expected].line:
            first = self.names[expected]
            hint = f" (the first extra name is {first.name!r} in line {first.line})"
        elif self.names[-1].line:
            hint = f" (the last name is {self.names[-1].name!r} in line {self.names[-1].line})"
        raise InputError(
            f"{self.path}: {have} class names{hint}, but {network} has {expected} classes; "
            "give one name for each class, in the order of the training"
        )


def read_class_file(path: Path) -> ClassFile:
    """Read the names of classes.

    Raises:
        InputError: The file cannot be read, has no names, an empty name, or a name twice; the message has the line.
    """
    text = read_text_file(path)
    found = _read(path, text)
    names = tuple(ClassName(clean_name(each.name), each.line) for each in found.names)
    if not names:
        raise InputError(f"{path}: this file has no class names; give one name on each line")
    _check_names(path, names)
    return ClassFile(path, names, found.notes, found.empty_lines)


def _read(path: Path, text: str) -> ClassFile:
    start, reason = text.lstrip()[:1], "neither a list nor keys and values"
    if start in ("{", "["):
        try:
            document = read_json(text, str(path))
        except NotJson as error:
            reason = error.reason
        else:
            return _from_document(path, document)
    if path.suffix.lower() == ".json":
        raise InputError(f"{path}: not JSON ({reason}); correct it, or give one name on each line")
    if _DARKNET_KEY.search(text):
        return _from_darknet_data(path, text)
    if _LABEL_MAP.match(text):
        return _from_label_map(path, text)
    if path.suffix.lower() in (".yaml", ".yml") or start in ("{", "[") or _looks_like_yaml(text):
        node = _yaml_node(path, text)
        if not isinstance(node, yaml.ScalarNode | None):
            return _from_yaml(path, node)
    return _from_lines(path, text)


def _check_names(path: Path, names: Sequence[ClassName]) -> None:
    first: dict[str, ClassName] = {}
    for number, each in enumerate(names):
        where = f"line {each.line}" if each.line else f"name {number + 1}"
        if not each.name:
            raise InputError(f"{path}: {where}: the name of class {number} is empty; give each class a name")
        if each.name in first:
            one = first[each.name]
            other = f"line {one.line}" if one.line else f"name {names.index(one) + 1}"
            raise InputError(f"{path}: {where}: class {each.name!r} is in {other} already; give each its own name")
        first[each.name] = each


def _from_lines(path: Path, text: str) -> ClassFile:
    lines = [ClassName(clean_name(line), number) for number, line in enumerate(text.split("\n"), 1)]
    while lines and not lines[-1].name:
        lines.pop()
    names = [line for line in lines if line.name]
    empty = tuple(line.line for line in lines if not line.name)
    notes = []
    if empty:
        lines_left_out = "1 empty line" if len(empty) == 1 else f"{len(empty)} empty lines"
        shown = ", ".join(map(str, empty[:_MOST_LINES]))
        more = ", …" if empty[_MOST_LINES:] else ""
        notes.append(f"{lines_left_out} between names left out: line {shown}{more}")
    numbered = _without_numbers(names)
    if numbered:
        names, first = numbered
        notes.append(f"left out the numbers {first} to {first + len(names) - 1} before the names")
    return ClassFile(path, tuple(names), tuple(notes), empty)


def _without_numbers(lines: Sequence[ClassName]) -> tuple[list[ClassName], int] | None:
    """Return names without the numbers before them, and the first number; None unless numbered from 0 or 1 on."""
    marked = [_MARKED.fullmatch(line.name) for line in lines]
    # A single line "1 euro" is a name; a single line "0: person" is a number and a name.
    is_marked = all(match is not None for match in marked)
    matches = marked if is_marked or len(lines) < 2 else [_NUMBERED.fullmatch(line.name) for line in lines]
    found = [
        (int(match[1]), ClassName(match[2], line.line))
        for match, line in zip(matches, lines, strict=True)
        if match is not None
    ]
    if is_marked:
        found.sort(key=lambda pair: pair[0])
    if not found or len(found) != len(lines) or found[0][0] > 1:
        return None
    first = found[0][0]
    if [number for number, _ in found] != list(range(first, first + len(found))):
        return None
    return [name for _, name in found], first


def _looks_like_yaml(text: str) -> bool:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    listed = bool(lines) and all(line.startswith("- ") for line in lines)
    return listed or lines[:1] == ["---"] or _NAMES_KEY.search(text) is not None


def _yaml_node(path: Path, text: str) -> yaml.Node | None:
    try:
        # Nodes, not values: they know their lines.
        return compose_yaml(text, str(path))
    except InputError as error:
        raise InputError(f"{error}; correct it, or give one name on each line") from error


def _from_yaml(path: Path, node: yaml.Node) -> ClassFile:
    """Return the names of a list, of a mapping by number, or of the ``names`` of a mapping."""
    notes: tuple[str, ...] = ()
    if isinstance(node, yaml.MappingNode):
        keys = {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}
        key = next((key for key in _LIST_KEYS if key in keys), None)
        if key is not None:
            notes = (f"taken from the key {key!r}",)
            found = _yaml_names(path, keys[key], key)
            count = keys.get("nc")
            if isinstance(count, yaml.ScalarNode) and count.value.isdecimal() and int(count.value) != len(found):
                raise InputError(
                    f"{path}: line {count.start_mark.line + 1}: nc is {count.value}, but {len(found)} names are "
                    f"given; correct nc or the names"
                )
            return ClassFile(path, tuple(found), notes)
        if not all(re.fullmatch(r"\d+", name) for name in keys):
            shown = ", ".join(list(keys)[:6])
            raise InputError(f"{path}: has no key 'names' (its keys: {shown}); give a list of names, or one per line")
    return ClassFile(path, tuple(_yaml_names(path, node, "file")), notes)


def _yaml_names(path: Path, node: yaml.Node, what: str) -> list[ClassName]:
    if isinstance(node, yaml.SequenceNode):
        return [_yaml_name(path, each) for each in node.value]
    if not isinstance(node, yaml.MappingNode):
        line = node.start_mark.line + 1
        raise InputError(
            f"{path}: line {line}: {what} is a string; give a list of names, or a mapping such as {{0: person}}"
        )
    numbered = [(str(key.value), _yaml_name(path, value, key)) for key, value in node.value]
    return _by_number(path, numbered)


def _yaml_name(path: Path, node: yaml.Node, key: yaml.Node | None = None) -> ClassName:
    line = (key or node).start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        # Categories, as CVAT and COCO write them: {id: 1, name: person}.
        named = [value.value for at, value in node.value if at.value == "name" and isinstance(value, yaml.ScalarNode)]
        if named:
            return ClassName(named[0], line)
    if not isinstance(node, yaml.ScalarNode):
        raise InputError(f"{path}: line {line}: a list or mapping instead of a name; write one string per class")
    return ClassName(node.value, line)


def _by_number(path: Path, pairs: Sequence[tuple[str, ClassName]]) -> list[ClassName]:
    """Return names in the order of their numbers, from 0 or 1 on without gaps; accept pairs (name, number) too."""
    if pairs and all(re.fullmatch(r"\d+", each.name) for _, each in pairs) and not pairs[0][0].isdecimal():
        pairs = [(each.name, ClassName(name, each.line)) for name, each in pairs]
    for number, each in pairs:
        if not re.fullmatch(r"\d+", number):
            where = f"line {each.line}: " if each.line else ""
            raise InputError(f"{path}: {where}{number[:40]!r} is not the number of a class; number the classes from 0")
    numbers = Counter(int(number) for number, _ in pairs)
    twice = next((number for number, count in numbers.items() if count > 1), None)
    if twice is not None:
        lines = [each.line for number, each in pairs if int(number) == twice]
        where = f"line {lines[1]}: " if lines[1] else ""
        raise InputError(f"{path}: {where}class {twice} is given twice; give each class its own number")
    first = min(numbers, default=0)
    missing = next((number for number in range(first, max(numbers, default=-1)) if number not in numbers), None)
    if first > 1 or missing is not None:
        gap = first - 1 if first > 1 else missing
        raise InputError(f"{path}: class {gap} has no name; number the classes from 0 on without gaps")
    return [each for _, each in sorted(pairs, key=lambda pair: int(pair[0]))]


def _from_document(path: Path, document: Any) -> ClassFile:
    """Return the names of a JSON document: a list, names by number, or either of them under a known key."""
    notes: tuple[str, ...] = ()
    if isinstance(document, Mapping):
        key = next((key for key in _LIST_KEYS if key in document), None)
        if key == "categories":
            return _from_categories(path, document)
        if key is not None:
            notes, document = (f"taken from the key {key!r}",), document[key]
    if isinstance(document, list):
        if document and all(isinstance(each, Mapping) and "id" in each for each in document):
            return _from_categories(path, {"categories": document})
        values = [each.get("name") if isinstance(each, Mapping) else each for each in document]
        return ClassFile(path, tuple(ClassName(_text(path, each, at)) for at, each in enumerate(values)), notes)
    if isinstance(document, Mapping) and document:
        if all(key.isdecimal() for key in document) or all(type(each) is int for each in document.values()):
            pairs = [(key, ClassName(_text(path, each, at))) for at, (key, each) in enumerate(document.items())]
            return ClassFile(path, tuple(_by_number(path, pairs)), notes)
        shown = ", ".join(list(document)[:6])
        raise InputError(f"{path}: has neither 'names' nor 'categories' (its keys: {shown}); give a list of names")
    raise InputError(f"{path}: this JSON has no class names; give a list of names")


def _text(path: Path, value: Any, at: int) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"{path}: name {at + 1} is {one_line(value, 40)!r}, not a string; write one string per class")
    return str(value)


def _from_categories(path: Path, document: Mapping[str, Any]) -> ClassFile:
    """Return the names of COCO's categories in the order of their ids, like the classes of a data set."""
    categories = document["categories"]
    if not isinstance(categories, list) or not all(isinstance(each, Mapping) for each in categories):
        raise InputError(f"{path}: 'categories' is not a list of categories; give an annotation file of COCO")
    for at, each in enumerate(categories):
        if not re.fullmatch(r"\d+(\.0)?", str(each.get("id"))) or not isinstance(each.get("name"), str):
            raise InputError(f"{path}: category {at + 1} is {one_line(dict(each), 60)}; expected an id and a name")
    ids = Counter(int(float(each["id"])) for each in categories)
    twice = next((number for number, count in ids.items() if count > 1), None)
    if twice is not None:
        raise InputError(f"{path}: two categories have the id {twice}; give each category its own id")
    ordered = sorted(categories, key=lambda each: int(float(each["id"])))
    notes = ["COCO categories in the order of their ids"]
    root = _root_category(ordered, document.get("annotations"))
    if root is not None:
        ordered.remove(root)
        notes.append(f"the category {root['name']!r} is left out: it groups the other categories and has no boxes")
    return ClassFile(path, tuple(ClassName(each["name"]) for each in ordered), tuple(notes))


def _root_category(categories: Sequence[Mapping[str, Any]], annotations: Any) -> Mapping[str, Any] | None:
    """Return the category that all others have as their supercategory and that no annotation uses, or None."""
    if len(categories) < 2 or not isinstance(annotations, list) or not annotations:
        return None
    used = {str(each.get("category_id")) for each in annotations if isinstance(each, Mapping)}
    for each in categories:
        others = [other for other in categories if other is not each]
        if str(each["id"]) not in used and all(other.get("supercategory") == each["name"] for other in others):
            return each
    return None


def _from_darknet_data(path: Path, text: str) -> ClassFile:
    """Return the names in the file that darknet's ``.data`` names, relative to the ``.data`` or the current folder."""
    match = _DARKNET_KEY.search(text)
    named = Path(clean_name(match[1]).replace("\\", "/")) if match else Path()
    line = text[: match.start(1)].count("\n") + 1 if match else 0
    places = [path.parent / named, path.parent.parent / named, named, path.parent / named.name]
    file = next((place for place in places if place.is_file() and not place.samefile(path)), None)
    if file is None:
        raise InputError(f"{path}: line {line}: file of names {str(named)!r} is missing; give that file with --classes")
    lines = _from_lines(file, read_text_file(file))
    count = _DARKNET_COUNT.search(text)
    if count is not None and int(count[1]) != len(lines.names):
        at = text[: count.start(1)].count("\n") + 1
        raise InputError(
            f"{path}: line {at}: classes is {count[1]}, but {file} has {len(lines.names)} names; correct one of the two"
        )
    return ClassFile(path, lines.names, (f"names from {file}", *lines.notes), lines.empty_lines)


def _from_label_map(path: Path, text: str) -> ClassFile:
    """Return the names of a label map of TensorFlow in the order of their ids."""
    found: dict[int, ClassName] = {}
    for item in _ITEM.finditer(text):
        line = text[: item.start()].count("\n") + 1
        fields = {match[1]: match[2] or match[3] or match[4] or "" for match in _FIELD.finditer(item[1])}
        # Names of Open Images are codes such as /m/01g317; display_name is for people.
        name = fields.get("display_name") or fields.get("name")
        if name is None or not fields.get("id", "").isdecimal():
            raise InputError(f"{path}: line {line}: this item has no id or no name; write both")
        number = int(fields["id"])
        if number in found:
            raise InputError(f"{path}: line {line}: id {number} is also in line {found[number].line}; change one id")
        found[number] = ClassName(name, line)
    return ClassFile(path, tuple(found[number] for number in sorted(found)), ("label map in the order of its ids",))
