"""Names that come from data: of classes, splits, data sets, versions and runs.

A name is printed, becomes the name of a file or a folder, or a key of a report. So it has no control or direction
characters, is not a path, and has a bounded length.
"""

from __future__ import annotations

from kubeyolo.errors import InputError, one_line
from kubeyolo.printable import has_unsafe_characters, without_unsafe_characters

LONGEST_NAME = 100
"""Most characters of the name of a split, a data set, a version or a run."""

LONGEST_CLASS = 200
"""Most characters of the name of a class."""

_SHOWN = 60


def name_fault(name: str, longest: int = LONGEST_NAME) -> str:
    """Return why a text cannot be a name, as words that follow it; empty if it can.

    Args:
        name: The text.
        longest: The largest number of characters.
    """
    if not name.strip():
        return "is empty"
    if has_unsafe_characters(name):
        return "has control or invisible characters, or marks of direction"
    if name in (".", "..") or "/" in name or "\\" in name:
        return "is a path"
    if len(name) > longest:
        return f"has {len(name)} characters, at most {longest} are allowed"
    return ""


def check_name(name: str, what: str, longest: int = LONGEST_NAME) -> str:
    """Return a name unchanged.

    Args:
        name: The name.
        what: What has the name, and where, for errors: "the split".
        longest: The largest number of characters.

    Raises:
        InputError: The text cannot be a name.
    """
    fault = name_fault(name, longest)
    if fault:
        raise InputError(f"{what} {one_line(repr(name), _SHOWN)} {fault}; choose another name")
    return name


def class_name(name: str) -> str:
    """Return the name of a class with its unsafe characters replaced, and the end of a long name left out.

    Class names are texts for people: other programs write any character into them. A name that is safe already is
    returned unchanged, so the result is the same for the name of a bundle and that of its data set.
    """
    safe = without_unsafe_characters(name)
    return safe if len(safe) <= LONGEST_CLASS else f"{safe[: LONGEST_CLASS - 1]}…"
