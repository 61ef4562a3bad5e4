"""Stores and stored documents by their URI."""

from __future__ import annotations

from dataclasses import replace

from kubeyolo.errors import InputError
from kubeyolo.storage.base import Store, check_key
from kubeyolo.storage.local import LocalStore
from kubeyolo.storage.location import BucketLocation, FileLocation, parse


def open_store(uri: str, hasty: bool = False) -> Store:
    """Open the store a URI points at; a bucket is contacted at once, so that a wrong one is known before any work.

    Args:
        uri: Of the store.
        hasty: Not to wait as long as the environment allows (``MINIO_PATIENCE``) for a store that is away.

    Raises:
        InputError: The URI is wrong, the store does not answer, its bucket is missing or its credentials are wrong.
        WorkError: The store did not answer for as long as the environment allows.
    """
    location = parse(uri)
    if isinstance(location, FileLocation):
        return LocalStore(location.path)
    # Only here, so that a run on folders needs neither the client nor its start-up time.
    from kubeyolo.storage.minio_settings import MinioSettings
    from kubeyolo.storage.minio_store import MinioStore

    settings = MinioSettings.from_environment(location.uri)
    return MinioStore.connect(replace(settings, patience=0.0) if hasty else settings, location)


def split_uri(uri: str) -> tuple[str, str]:
    """Split a URI into the URI of the store it lies in and its name there.

    Raises:
        InputError: The URI names a whole bucket or the root folder.
    """
    location = parse(uri)
    if isinstance(location, FileLocation):
        if not location.path.name:
            raise InputError(f"{uri}: this is no name of a file")
        return FileLocation(location.path.parent).uri, location.path.name
    if not location.prefix:
        raise InputError(f"{uri}: this is a bucket, not something in it")
    parent, _, name = location.prefix.rpartition("/")
    return BucketLocation(location.scheme, location.bucket, parent).uri, name


def join_uri(uri: str, *names: str) -> str:
    """Return the URI of a key below another URI, in the form that ``Store.uri_of`` gives."""
    location = parse(uri)
    key = check_key("/".join(names))
    if isinstance(location, FileLocation):
        return FileLocation(location.path / key).uri
    return f"{location.uri}/{key}"


def read_document(uri: str) -> bytes:
    """Return the content of one stored document; raise ``NotFound`` when there is none."""
    parent, name = split_uri(uri)
    return open_store(parent).read_bytes(name)


def write_document(uri: str, data: bytes) -> None:
    """Write one stored document, whole or not at all."""
    parent, name = split_uri(uri)
    open_store(parent).write_bytes(name, data)
