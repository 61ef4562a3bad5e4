"""What interrupted commands have left in a store: temporary files, and files of bundles that no manifest names."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kubeyolo.bundle import MANIFEST_NAME, is_content_folder, read_manifest
from kubeyolo.errors import InputError
from kubeyolo.publishing import remove_unnamed
from kubeyolo.storage.base import PART_SUFFIX, Listing
from kubeyolo.storage.file_errors import file_errors
from kubeyolo.storage.file_lock import lock_file
from kubeyolo.storage.owned_folder import OWNER_SUFFIX
from kubeyolo.storage.place import Place

_PART = re.compile(rf"\.[0-9a-f]{{32}}{re.escape(PART_SUFFIX)}")
"""Name of a temporary file or folder; lock files have other names, and stay."""


@dataclass(frozen=True)
class Remains:
    """Something that an interrupted command has left.

    Attributes:
        uri: Its URI.
        size: Its bytes.
        modified: When it was last written, by the clock of the store.
        path: The temporary file or folder; None for the files of a bundle.
        bundle: The folder of the bundle; None for a temporary file or folder.
    """

    uri: str
    size: int
    modified: datetime
    path: Path | None = None
    bundle: Place | None = None


def remains_of(store: Place, listing: Listing, before: datetime) -> list[Remains]:
    """Return what interrupted commands have left, if nothing was written there since a time.

    Args:
        store: The store.
        listing: All of its objects.
        before: The time.
    """
    found = [*_unnamed_folders(store, listing), *_temporary(store)]
    return sorted((each for each in found if each.modified <= before), key=lambda each: each.uri)


def remove_remains(remains: Remains) -> bool:
    """Remove what an interrupted command has left, and return whether it was removed; a running command keeps it.

    Raises:
        InputError: The store cannot be used.
    """
    if remains.bundle is not None:
        return remove_unnamed(remains.bundle, remains.uri.rpartition("/")[2])
    assert remains.path is not None
    with file_errors(remains.path):
        return _remove_path(remains.path, remains.modified)


def _remove_path(path: Path, modified: datetime) -> bool:
    """Remove a temporary file or folder that no process has locked or written since."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        if not lock_file(descriptor, wait=False) or _facts(path)[1] != modified:
            return False
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)


def _unnamed_folders(store: Place, listing: Listing) -> Iterator[Remains]:
    """Yield the folders of files that killed publishers have left next to the manifest of a bundle."""
    manifests = {stored.key for stored in listing if stored.key.rpartition("/")[2] == MANIFEST_NAME}
    folders: dict[tuple[str, str], tuple[int, datetime]] = {}
    for stored in listing:
        parts = stored.key.split("/")
        for depth, part in enumerate(parts):
            parent, name = "/".join(parts[:depth]), part.removesuffix(OWNER_SUFFIX)
            is_bundle = f"{parent}/{MANIFEST_NAME}" in manifests or (parts[0] == "models" and depth == 3)
            if is_bundle and is_content_folder(name) and (depth < len(parts) - 1 or part != name):
                size, modified = folders.get((parent, name), (0, datetime.min.replace(tzinfo=UTC)))
                folders[parent, name] = size + stored.size, max(modified, stored.modified or datetime.now(UTC))
                break
    for (parent, name), (size, modified) in folders.items():
        key = f"{parent}/{MANIFEST_NAME}"
        named = _named_folder(store, key) if key in manifests else ""
        if named not in (name, None):
            yield Remains(f"{(store / parent).uri}/{name}", size, modified, bundle=store / parent)


def _named_folder(store: Place, key: str) -> str | None:
    """Return the folder that a manifest names; None if it cannot be read."""
    with suppress(InputError):
        return read_manifest(store.store.read_bytes(key), key).folder
    return None


def _temporary(store: Place) -> Iterator[Remains]:
    """Yield the temporary files and folders of a store in a folder; an object store has none that can be listed."""
    root = store.store.local_path()
    if root is None:
        return
    for parent, folders, names in os.walk(root):
        for name in [*folders, *names]:
            if _PART.fullmatch(name):
                path = Path(parent, name)
                with suppress(FileNotFoundError):
                    size, modified = _facts(path)
                    yield Remains(path.absolute().as_uri(), size, modified, path=path)
        folders[:] = [name for name in folders if not name.endswith(PART_SUFFIX)]


def _facts(path: Path) -> tuple[int, datetime]:
    """Return the bytes of a file, or of all files in a folder, and when the newest was written."""
    statuses = [path.lstat()]
    for parent, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                statuses.append(Path(parent, name).lstat())
    size = sum(status.st_size for status in statuses[1:]) if len(statuses) > 1 else statuses[0].st_size
    return size, datetime.fromtimestamp(max(status.st_mtime for status in statuses), UTC)
