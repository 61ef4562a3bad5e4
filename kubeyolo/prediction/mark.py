"""The comment in drawn pictures: what has it may be written over, and is not read as an image of a folder."""

from __future__ import annotations

from pathlib import Path

MARK = b"drawn by kubeyolo predict"

_HEAD = 4096


def is_drawn(path: Path | str) -> bool:
    """Tell whether a file was drawn by this command."""
    try:
        with open(path, "rb") as file:
            return MARK in file.read(_HEAD)
    except OSError:
        return False
