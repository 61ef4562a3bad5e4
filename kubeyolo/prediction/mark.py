"""The comment in drawn pictures: files with it may be overwritten, and are not read as images of a folder."""

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
