"""Cached checksums of files: a file is read again when its size, a time or its inode has changed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from kubeyolo.errors import KubeyoloError
from kubeyolo.storage.cache import cache_folder
from kubeyolo.storage.integrity import appearing, sha256_file

_SMALL = 1 << 20
"""A single file of at most this many bytes is read without the cache."""

_SETTLED_SECONDS = 2.0
"""Results of files that were written more recently are not cached: another write may leave the times unchanged."""


def remembered_sha256(path: Path) -> str:
    """Return the sha256 of a file; the cached value if the file has not changed.

    Raises:
        OSError: The file cannot be read.
    """
    facts = path.stat()
    if facts.st_size <= _SMALL:
        return sha256_file(path)
    return remembered(str(path.absolute()), [("", facts)], lambda: sha256_file(path))


def remembered(what: str, files: Iterable[tuple[str, os.stat_result]], compute: Callable[[], str]) -> str:
    """Return a result computed from files; the cached result if no file has changed.

    Args:
        what: Name of the result, with the path that it is computed for.
        files: Name and status of each file that the result is computed from.
        compute: Reads the files and returns the result.
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
        # A cache that cannot be written costs time, not a result.
        with suppress(OSError, KubeyoloError), appearing(note, durable=False) as part:
            part.write_text(json.dumps({"state": state.hexdigest(), "result": result}))
    return result
