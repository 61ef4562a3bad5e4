"""The commands of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import typer

from kubeyolo.cli.app import LazyCommand, app

COMMAND: Any = typer.main.get_command(app)
"""The group of all commands."""


@cache
def all_commands() -> dict[str, Any]:
    """Return the commands and groups by what is typed for them, with the options of each."""

    def below(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            if isinstance(command, LazyCommand):
                yield f"{prefix}{name}", command.load()
            else:
                yield f"{prefix}{name}", command
                yield from below(command, f"{prefix}{name} ")

    return dict(below(COMMAND))
