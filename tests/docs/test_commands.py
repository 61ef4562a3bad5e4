"""What the documentation tells to type and to open exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from kubeyolo.cli.app import app
from kubeyolo.config.load import known_keys

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
    """Return the shell blocks and the inline code of a page, one piece a line."""
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", text, re.DOTALL)
    plain = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", plain)]).replace("\\\n", " ")


def test_commands_and_options_exist(text: str) -> None:
    group: Any = typer.main.get_command(app)
    for line in COMMAND.findall(code(text)):
        words = line.partition("#")[0].split()
        command = group
        while words and getattr(command, "commands", None):
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        known = {name for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
        assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known, line


def test_keys_exist(text: str) -> None:
    known = known_keys()
    sections = {key.split(".")[0] for key in known if "." in key}
    found = [key for key in re.findall(r"(?<![\w./-])([a-z]+\.[a-z_0-9]+)\b(?![./(-])", code(text))]
    unknown = {key for key in found if key.split(".")[0] in sections and key not in known}
    assert unknown <= {"train.json", "train.txt", "data.yaml", "train.max_epochs"}  # files, and an example of an error


def test_make_targets_exist(text: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in re.findall(r"^make ([a-z -]+)", code(text), re.MULTILINE):
        assert set(line.split()) <= targets, line


def test_links_lead_somewhere(page: Path, text: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in target or (page.parent / target).exists(), target
