"""Matches image file names in annotations with the files of a folder, even if they differ in an obvious way."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kubeyolo.data.columns import is_text
from kubeyolo.data.layouts.names import is_image_name

_LONGEST = 255
"""The longest name of a file or folder that usual file systems allow, in bytes."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True)
class NameMatch:
    """The file that a name in the annotations means.

    Attributes:
        path: Relative path of the file; the normalized name if no file matches.
        is_near: Whether the name differs from the path.
        hint: Words about a similar file, if no file matches; may be empty.
        leaves: Whether no file matches and the name is an absolute path or has '..'.
    """

    path: str
    is_near: bool = False
    hint: str = ""
    leaves: bool = False


class FileNames:
    """The files of an image folder, found by name."""

    def __init__(self, folder: Path, paths: Iterable[str]) -> None:
        """Take the paths of the files, relative to ``folder``."""
        self.folder = folder
        self._paths = set(paths)
        self._is_folder = cache(Path.is_dir)

    def __len__(self) -> int:
        return len(self._paths)

    def match(self, name: str) -> NameMatch:
        """Return the file with this name, or else the only file whose name differs just in form or leading folders."""
        normal = posixpath.normpath(name)
        if normal in self._paths:
            return NameMatch(normal)
        if normal.startswith("../") and not name.startswith("../"):
            # No program writes a path that enters a folder and then leaves the folder above it.
            return NameMatch(normal, leaves=True)
        written = _plain(name).split("/")
        parts = [_folded(part) for part in written]
        by_ending, by_stem = self._index
        for start in range(len(parts)):
            there = by_ending.get("/".join(parts[start:]), [])
            if len(there) == 1:
                other = self._of_another_folder(written[:start], there[0])
                if not other:
                    return NameMatch(there[0], is_near=True)
                hint = f"{other!r} is in another folder"
                break
            if there:
                hint = f"it may be {there[0]!r} or {there[1]!r}"
                break
        else:
            similar = by_stem.get(posixpath.splitext(parts[-1])[0], [])
            hint = f"there is {similar[0]!r}" if similar else ""
        return NameMatch(normal, hint=hint, leaves=_leaves(name))

    def _of_another_folder(self, dropped: list[str], path: str) -> str:
        """Return the file in a neighbouring folder that a name with leading folders means, or '' if there is none.

        Two splits often have files of the same name: ``val/1.jpg`` is not the ``1.jpg`` of train.
        """
        for start in range(len(dropped)):
            above = "/".join(dropped[start:])
            if ".." in dropped[start:] or not self._is_folder(self.folder.parent / above):
                continue
            other = self.folder.parent / above / path
            if other.is_file() and os.path.realpath(other) != os.path.realpath(self.folder / path):
                return f"{above}/{path}"
        return ""

    @cached_property
    def _index(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """The files by each ending of their path, and images by their stem, both normalized for comparison."""
        by_ending: dict[str, list[str]] = defaultdict(list)
        by_stem: dict[str, list[str]] = defaultdict(list)
        for path in sorted(self._paths):
            parts = _folded(_plain(path)).split("/")
            for start in range(len(parts)):
                by_ending["/".join(parts[start:])].append(path)
            if is_image_name(path):
                by_stem[posixpath.splitext(parts[-1])[0]].append(path)
        return by_ending, by_stem


def is_file_name(name: object) -> bool:
    """Tell whether a value can be the name of a file."""
    if not isinstance(name, str) or not name.strip() or posixpath.normpath(name) == ".":
        return False
    # Names with control characters are mistakes, and would break messages.
    return (
        is_text(name) and not _CONTROL.search(name) and all(len(part.encode()) <= _LONGEST for part in name.split("/"))
    )


def _leaves(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _plain(name: str) -> str:
    """Return a name without scheme, percent codes and outer spaces, with '/' between its parts."""
    if _SCHEME.match(name):
        parts = urlsplit(name)
        name = f"{parts.netloc}{parts.path}"
    plain = unquote(name.replace("\\", "/")).strip()
    return posixpath.normpath(plain).lstrip("/")
