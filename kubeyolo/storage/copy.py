"""Copies folders and files into a store, out of a store, or between stores."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from kubeyolo.errors import InputError
from kubeyolo.progress import Progress
from kubeyolo.storage.claim import CLAIM_NAME, claimed
from kubeyolo.storage.location import FileLocation
from kubeyolo.storage.owned_folder import OWNER_SUFFIX
from kubeyolo.storage.place import Place
from kubeyolo.storage.workspace import temporary_folder

_COPYING = f"copying{OWNER_SUFFIX}"
"""Name of the claim of a process that copies a bundle or a data set."""


def copy_tree(source: str, target: str, last: Sequence[str] = ()) -> tuple[int, int]:
    """Copy every file below a folder, except claims on the folder.

    Processes that copy folders with manifests to the same target write one after the other.

    Args:
        source: Folder or URI.
        target: Folder or URI.
        last: Names of manifests; the first name that exists in the source is written last.

    Returns:
        The number of files, and their size in bytes.

    Raises:
        InputError: There is nothing to copy, or a store cannot be used.
    """
    from_place = Place.of(source)
    to_place = from_place.at(target)
    from_store, to_store = from_place.store, to_place.store
    if from_store.uri == to_store.uri:
        raise InputError(f"{source}: the target is the same as the source")
    claims = [stored.key for stored in from_store.list_folder() if _is_claim(stored.key)]
    objects = [stored for stored in from_store.list() if stored.key not in claims]
    if not objects:
        raise InputError(f"{source}: there is nothing to copy")
    final = next((name for name in last if any(stored.key == name for stored in objects)), None)
    size = sum(stored.size for stored in objects)
    with temporary_folder("copy") as folder:
        here = from_store.local_path()
        if here is None:
            here = folder
            with Progress("reading", size, "bytes") as progress:
                from_store.get_tree("", here, progress.advance)
        alone = nullcontext() if final is None else claimed(to_place, key=_COPYING, stays=False)
        with alone, Progress("writing", size, "bytes") as progress:
            if final is not None:
                to_store.remove_remains("", [stored.key for stored in objects])
            to_store.put_tree(here, "", final, progress.advance, left_out=claims)
    return len(objects), size


def _is_claim(key: str) -> bool:
    return key == CLAIM_NAME or key.endswith(OWNER_SUFFIX)


def is_file(uri: str) -> bool:
    """Tell whether a URI names a single file or object, not a folder.

    Raises:
        InputError: The store cannot be used.
    """
    place = Place.of(uri)
    if isinstance(place.location, FileLocation):
        return place.location.path.is_file()
    return bool(place.location.prefix) and place.exists()


def copy_file(source: str, target: str) -> tuple[int, int]:
    """Copy one file; the copy is written atomically.

    Args:
        source: Path or URI of the file.
        target: Path or URI of the copy.

    Returns:
        1, and the size of the file in bytes.

    Raises:
        InputError: The target is a folder, or a store cannot be used.
    """
    from_place = Place.of(source)
    to_place = _file_target(from_place.at(target), target, from_place.name)
    if from_place.uri == to_place.uri:
        raise InputError(f"{source}: the target is the same as the source")
    with temporary_folder("copy") as folder:
        from_store = from_place.parent.store
        here = from_store.local_path(from_place.name)
        if here is None:
            here = folder / from_place.name
            from_store.get_file(from_place.name, here)
        size = here.stat().st_size
        with Progress("writing", size, "bytes") as progress:
            to_place.parent.store.put_file(here, to_place.name, progress.advance)
    return 1, size


def _file_target(place: Place, target: str, name: str) -> Place:
    if isinstance(place.location, FileLocation):
        is_folder = place.location.path.is_dir()
    else:
        is_folder = not place.location.prefix or bool(place.store.list())
    if is_folder or target.endswith("/"):
        raise InputError(f"{target}: this is a folder; add the name of the file: {place / name}")
    return place
