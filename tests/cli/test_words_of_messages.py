"""Keys, options and commands that a message names are ones that can be typed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import kubeyolo
from kubeyolo.catalogue import STEPS
from kubeyolo.compiled.resources import RESOURCES
from kubeyolo.config.load import known_keys, mapping_keys
from tests.commands import COMMAND, all_commands

ROOT = Path(kubeyolo.__file__).parent
SECTIONS = {key.partition(".")[0] for key in known_keys() if "." in key}

OF_OTHER_PROGRAMS = {
    *("--poll", "--time"),
    *("--framework", "--soc_version", "--input_format", "--input_shape", "--insert_op_conf"),
    *("--fmk", "--save", "--optimize"),
}
"""Options of the watch in the cluster and of podman, of atc, and of converter_lite (``--save`` of ``--saveType``)."""


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts of a module that read as sentences, with ``{}`` for each value, and no docstring."""
    tree = ast.parse(path.read_text())
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    parts |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and id(node) not in parts:
            values = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "".join(map(str, values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.lineno, node.value


def sentences() -> list[tuple[str, str]]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        for number, text in texts(path):
            if " " in text.strip() and "import " not in text:
                found.append((f"{path.relative_to(ROOT)}:{number}", text))
    return found


@pytest.fixture(scope="module")
def said() -> list[tuple[str, str]]:
    return sentences()


def test_each_key_that_is_named_is_a_key(said: list[tuple[str, str]]) -> None:
    pattern = re.compile(rf"(?<![\w./])((?:{'|'.join(sorted(SECTIONS))})\.[a-z][a-z_]*)(?!\w|\.(?:py|json)|/)")
    named = [(place, key) for place, text in said for key in pattern.findall(text)]
    files = {"data.pkl", "data.yaml"}
    # A resource of a step, as the option --resources takes it, looks like a key.
    resources = {f"{step}.{name}" for step in STEPS for name in RESOURCES}
    known = {*known_keys(), *mapping_keys(), *resources}
    assert len(named) > 60
    assert [each for each in named if each[1] not in known | files] == []


def test_each_option_that_is_named_is_one_of_a_command(said: list[tuple[str, str]]) -> None:
    options = {
        "--help",
        *(option for command in all_commands().values() for each in command.params for option in each.opts),
    }
    for command in (COMMAND, *all_commands().values()):
        options |= {option for each in command.params for option in each.opts}
    # Options may be written with underscores or with hyphens.
    options |= {option[:2] + option[2:].replace("-", "_") for option in options}
    named = [(place, option) for place, text in said for option in re.findall(r"(?<![\w-])--[a-z][a-z_-]*", text)]
    assert len(named) > 60
    assert [each for each in named if each[1] not in options | OF_OTHER_PROGRAMS] == []


def test_each_command_that_is_named_is_one(said: list[tuple[str, str]]) -> None:
    names = all_commands()
    # In quotation marks, after a colon, or with what a command takes.
    pattern = re.compile(r"(?:'|: )kubeyolo ((?:[a-z]+ ?)+)")
    named = [(place, words.split()) for place, text in said for words in pattern.findall(text)]
    assert len(named) > 10
    typed = [each for each in named if any(" ".join(each[1][:length]) in names for length in (1, 2, 3))]
    assert [each for each in named if each not in typed] == []
