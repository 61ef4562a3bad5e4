"""Checksums of files that are remembered: a file is read again when its size, its times or its inode have changed."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from contextlib import suppress
from pathlib import Path

from kubeyolo.storage.cache import cache_folder
from kubeyolo.storage.integrity import sha256_file

_SMALL = 1 << 20
"""Bytes up to which a file is simply read."""


def remembered_sha256(path: Path) -> str:
    """Return the sha256 of a file, from memory where the file has not been written since.

    Raises:
        OSError: It cannot be read.
    """
    facts = path.stat()
    if facts.st_size <= _SMALL:
        return sha256_file(path)
    state = [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()
    note = cache_folder("checksums") / name[:2] / name
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(note.read_text())
        if known["state"] == state:
            return str(known["sha256"])
    digest = sha256_file(path)
    # A cache that cannot be written costs time, not a result.
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        part = note.with_name(f".{uuid.uuid4().hex}")
        part.write_text(json.dumps({"state": state, "sha256": digest}))
        os.replace(part, note)
    return digest
