"""Checksums of files that are remembered: files are read again when a size, a time or an inode has changed."""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from kubeyolo.storage.cache import cache_folder
from kubeyolo.storage.integrity import sha256_file

_SMALL = 1 << 20
"""Bytes up to which a single file is simply read."""

_SETTLED_SECONDS = 2.0
"""Files that were written less than this ago are not remembered: another write may leave the same times."""


def remembered_sha256(path: Path) -> str:
    """Return the sha256 of a file, from memory where the file has not been written since.

    Raises:
        OSError: It cannot be read.
    """
    facts = path.stat()
    if facts.st_size <= _SMALL:
        return sha256_file(path)
    return remembered(str(path.absolute()), [("", facts)], lambda: sha256_file(path))


def remembered(what: str, files: Iterable[tuple[str, os.stat_result]], compute: Callable[[], str]) -> str:
    """Return what was computed from files, from memory where none of them has been written since.

    Args:
        what: What is computed, of which place.
        files: Each file that it is computed from, by name.
        compute: Reads the files.
    """
    state, newest = hashlib.sha256(), 0
    for name, facts in files:
        line = f"{name}\0{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}\n"
        state.update(line.encode(errors="surrogateescape"))
        newest = max(newest, facts.st_mtime_ns, facts.st_ctime_ns)
    known_as = hashlib.sha256(what.encode(errors="surrogateescape")).hexdigest()
    note, now = cache_folder("checksums") / known_as[:2] / known_as, time.time_ns()
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(note.read_text())
        if known["state"] == state.hexdigest():
            return str(known["result"])
    result = compute()
    if newest < now - _SETTLED_SECONDS * 1e9:
        _write(note, {"state": state.hexdigest(), "result": result})
    return result


def _write(note: Path, content: dict[str, str]) -> None:
    """Write a note; a cache that cannot be written costs time, not a result."""
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        part = note.with_name(f".{uuid.uuid4().hex}")
        part.write_text(json.dumps(content))
        os.replace(part, note)
