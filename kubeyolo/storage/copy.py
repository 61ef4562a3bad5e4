"""Folders copied into a store, out of it, or from one to another."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from kubeyolo.errors import InputError
from kubeyolo.progress import Progress
from kubeyolo.storage.uri import open_store


def copy_tree(source: str, target: str, last: Sequence[str] = ()) -> tuple[int, int]:
    """Copy every file below a folder.

    Args:
        source: Folder or URI.
        target: Folder or URI.
        last: Names of files that tell readers that all is there; one that the source has is written last.

    Returns:
        How many files there are, and their bytes.

    Raises:
        InputError: There is nothing to copy, or a store cannot be used.
    """
    from_store, to_store = open_store(source), open_store(target)
    if from_store.uri == to_store.uri:
        raise InputError(f"{source}: the target is the source")
    objects = from_store.list()
    if not objects:
        raise InputError(f"{source}: there is nothing to copy")
    final = next((name for name in last if any(stored.key == name for stored in objects)), None)
    size = sum(stored.size for stored in objects)
    with tempfile.TemporaryDirectory(prefix="kubeyolo-copy-") as name:
        here = from_store.local_path()
        if here is None:
            here = Path(name)
            with Progress("reading", size, "bytes") as progress:
                from_store.get_tree("", here, progress.advance)
        with Progress("writing", size, "bytes") as progress:
            to_store.put_tree(here, "", last=final, on_bytes=progress.advance)
    return len(objects), size
