"""Folders and files copied into a store, out of it, or from one to another."""

from __future__ import annotations

from collections.abc import Sequence

from kubeyolo.errors import InputError
from kubeyolo.progress import Progress
from kubeyolo.storage.claim import CLAIM_NAME
from kubeyolo.storage.location import FileLocation, parse
from kubeyolo.storage.uri import join_uri, open_store, split_uri
from kubeyolo.storage.workspace import temporary_folder


def copy_tree(source: str, target: str, last: Sequence[str] = ()) -> tuple[int, int]:
    """Copy every file below a folder; the claim on it is not one of the copy.

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
    objects = [stored for stored in from_store.list() if stored.key != CLAIM_NAME]
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
        with Progress("writing", size, "bytes") as progress:
            to_store.put_tree(here, "", final, progress.advance, left_out=(CLAIM_NAME,))
    return len(objects), size


def is_file(uri: str) -> bool:
    """Tell whether a URI names one file, or object of a store, and not a folder of them.

    Raises:
        InputError: The store cannot be used.
    """
    location = parse(uri)
    if isinstance(location, FileLocation):
        return location.path.is_file()
    if not location.prefix:
        return False
    parent, name = split_uri(uri)
    return open_store(parent).exists(name)


def copy_file(source: str, target: str) -> tuple[int, int]:
    """Copy one file, which appears whole or not at all.

    Args:
        source: Path or URI of the file.
        target: Path or URI that it has afterwards.

    Returns:
        1, and its bytes.

    Raises:
        InputError: The target is a folder, or a store cannot be used.
    """
    (from_uri, from_name), (to_uri, to_name) = split_uri(source), _file_target(target, split_uri(source)[1])
    from_store, to_store = open_store(from_uri), open_store(to_uri)
    if from_store.uri_of(from_name) == to_store.uri_of(to_name):
        raise InputError(f"{source}: the target is the source")
    with temporary_folder("copy") as folder:
        here = from_store.local_path(from_name)
        if here is None:
            here = folder / from_name
            from_store.get_file(from_name, here)
        size = here.stat().st_size
        with Progress("writing", size, "bytes") as progress:
            to_store.put_file(here, to_name, progress.advance)
    return 1, size


def _file_target(target: str, name: str) -> tuple[str, str]:
    location = parse(target)
    if isinstance(location, FileLocation):
        is_folder = location.path.is_dir()
    else:
        is_folder = not location.prefix or bool(open_store(target).list())
    if is_folder or target.endswith("/"):
        raise InputError(f"{target}: this is a folder; name the file too: {join_uri(target, name)}")
    return split_uri(target)
