"""The help of every command: its examples can be typed as they are shown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from kubeyolo.cli.app import app, main
from kubeyolo.config.load import load_config

ROOT = Path(__file__).parents[2]


def commands(group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    for key, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name}{key} ")
        else:
            yield f"{name}{key}", command


COMMANDS = dict(commands(typer.main.get_command(app)))
CONFIGURED = {
    *("run", "configure", "validate", "pretrain", "train", "evaluate", "compare", "export", "quantize", "publish"),
    *(
        "estimate",
        "convert",
        "anchors",
        "predict",
        "models show",
        "gate",
        "pipeline show",
        "pipeline submit",
        "pipeline gate",
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_can_be_typed_as_they_are_shown(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("KUBEYOLO_STORE", "minio://kubeyolo")
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (0, "")
    paragraphs = re.split(r"\n\s*\n", out.partition("Examples")[2])
    examples = [shlex.split(text)[1:] for text in paragraphs if text.strip().startswith(f"kubeyolo {command}")]
    assert examples
    for words in examples:
        given = COMMANDS[command].make_context(command, words[len(command.split()) :]).params
        load_config(sets=given.get("sets") or ())
        for name in re.findall(r"examples/[\w.-]+", " ".join(words)):
            assert (ROOT / name).is_file(), name


def test_commands_that_depend_on_settings_take_a_file_and_pairs() -> None:
    contexts = {name: each.make_context(name, [], resilient_parsing=True) for name, each in COMMANDS.items()}
    options = {name: {word for part in each.command.params for word in part.opts} for name, each in contexts.items()}
    assert {name for name in COMMANDS if {"--config", "--set", "-c", "-s"} <= options[name]} == CONFIGURED
