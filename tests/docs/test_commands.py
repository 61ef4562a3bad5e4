"""The commands, options, keys, make targets and links of the documentation exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kubeyolo.catalogue import STEPS
from kubeyolo.cli.spelling import option_spelling
from kubeyolo.compiled.resources import RESOURCES
from kubeyolo.config.load import known_keys
from tests.commands import COMMAND as KUBEYOLO
from tests.commands import all_commands

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
COMMAND = re.compile(r"(?<![\w/.-])(?:\.venv/bin/)?kubeyolo ([a-z][^`\n|]*)")


@pytest.fixture(params=[page for page in PAGES if page.exists()], ids=lambda page: page.name)
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture
def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def code(text: str) -> str:
    """Return the shell blocks and the inline code of a page, one piece on each line."""
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", text, re.DOTALL)
    plain = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", plain)]).replace("\\\n", " ")


def test_commands_and_options_exist(text: str) -> None:
    for line in COMMAND.findall(code(text)):
        words = line.partition("#")[0].split()
        command, name = KUBEYOLO, ""
        while words and hasattr(command, "commands"):
            name = f"{name} {words.pop(0)}".strip()
            assert name in all_commands(), line
            command = all_commands()[name]
        spelled = option_spelling(name)
        known = {spelled(name) for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
        typed = {word.partition("=")[0] for word in words if word.startswith("-")}
        assert {f"--{spelled(word[2:])}" if word.startswith("--") else word for word in typed} <= known, line


def test_keys_exist(text: str) -> None:
    known = known_keys()
    sections = {key.split(".")[0] for key in known if "." in key}
    # A module such as evaluate.py has the name of a section.
    found = re.findall(r"(?<![\w./-])([a-z]+\.(?!py\b)[a-z_0-9]+)\b(?![./(-])", code(text))
    resources = {f"{step}.{resource}" for step in STEPS for resource in RESOURCES}
    unknown = {key for key in found if key.split(".")[0] in sections and key not in known} - resources
    assert unknown <= {"train.json", "train.txt", "data.yaml", "train.max_epochs"}  # files, and an example of an error


def test_make_targets_exist(text: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in re.findall(r"^make ([a-z -]+)", code(text), re.MULTILINE):
        assert set(line.split()) <= targets, line


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes from the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_files_and_headings_of_links_exist(page: Path, text: str) -> None:
    for file, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", text):
        if "://" not in file:
            target = page.parent / file if file else page
            assert target.exists() and (not anchor or anchor in anchors(target)), f"{file}#{anchor}"
