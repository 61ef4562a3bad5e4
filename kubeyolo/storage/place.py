"""Parsed URIs (:class:`Place`) and open stores (:class:`Stores`): a URI is parsed once, a store is opened once.

A reference is a URI with the digest of its content, ``minio://bucket/key@sha256:<64 digits>``. Steps pass references to
each other: a cache key with a reference changes when the content changes, and a reader refuses any other content.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kubeyolo.errors import InputError
from kubeyolo.storage.base import Store, check_key, join_key
from kubeyolo.storage.integrity import sha256_bytes
from kubeyolo.storage.local import LocalStore
from kubeyolo.storage.location import BucketLocation, FileLocation, parse

if TYPE_CHECKING:
    from kubeyolo.storage.minio_store import MinioStore

_PINNED = re.compile(r"(?P<uri>.+)@sha256:(?P<digest>[0-9a-f]{64})", re.DOTALL)


class Stores:
    """The stores that a command or a step uses. Each bucket is contacted once, when it is first used."""

    def __init__(self, is_patient: bool = True) -> None:
        """Make an object without connections.

        Args:
            is_patient: Whether to wait for an unreachable store for as long as the environment allows
                (``MINIO_PATIENCE``).
        """
        self._is_patient = is_patient
        self._buckets: dict[tuple[str, str], MinioStore] = {}

    def place(self, text: str) -> Place:
        """Return the place of a URI, a path or a reference; no store is contacted.

        Raises:
            InputError: The URI is wrong.
        """
        match = _PINNED.fullmatch(text)
        uri, digest = (match["uri"], match["digest"]) if match else (text, "")
        return Place(parse(uri), digest, self)

    def open(self, location: FileLocation | BucketLocation) -> Store:
        """Return the store whose root is a location; the first call for a bucket contacts it.

        Raises:
            InputError: The store does not answer, its bucket is missing or its credentials are wrong.
            WorkError: The store did not answer for as long as the environment allows (``MINIO_PATIENCE``).
        """
        if isinstance(location, FileLocation):
            return LocalStore(location.path)
        bucket = (location.scheme, location.bucket)
        if bucket not in self._buckets:
            self._buckets[bucket] = self._connect(location)
        return self._buckets[bucket].at(location.prefix)

    def _connect(self, location: BucketLocation) -> MinioStore:
        # Imported here, so that a run on folders needs neither the client nor its start-up time.
        from kubeyolo.storage.minio_settings import MinioSettings
        from kubeyolo.storage.minio_store import MinioStore

        settings = MinioSettings.from_environment(location.uri)
        settings = settings if self._is_patient else replace(settings, patience=0.0)
        return MinioStore.connect(settings, location)


@dataclass(frozen=True)
class Place:
    """A folder of a store, or one object in it.

    Attributes:
        location: The parsed URI.
        digest: sha256 that the content must have; empty if any content is accepted.
        stores: Open stores, shared by all places that were made from this place.
    """

    location: FileLocation | BucketLocation
    digest: str = ""
    stores: Stores = field(default_factory=Stores, compare=False, repr=False)

    @classmethod
    def of(cls, text: str | Path) -> Place:
        """Return the place of a URI, a path or a reference, with a separate set of stores.

        Raises:
            InputError: The URI is wrong.
        """
        return Stores().place(str(text))

    def at(self, text: str) -> Place:
        """Return the place of another URI, path or reference, with the same stores."""
        return self.stores.place(text)

    def __truediv__(self, key: str) -> Place:
        """Return the place of a key below this place."""
        key = check_key(key)
        if isinstance(self.location, FileLocation):
            return Place(FileLocation(self.location.path / key), "", self.stores)
        return Place(replace(self.location, prefix=join_key(self.location.prefix, key)), "", self.stores)

    def __str__(self) -> str:
        return self.uri

    @property
    def uri(self) -> str:
        """The URI without a digest."""
        return self.location.uri

    @property
    def reference(self) -> str:
        """The URI, with the digest if there is a digest."""
        return f"{self.uri}@sha256:{self.digest}" if self.digest else self.uri

    def pinned(self, digest: str) -> Place:
        """Return this place with the sha256 of its content, 64 hexadecimal digits; an empty text removes it."""
        return replace(self, digest=digest)

    @property
    def name(self) -> str:
        """The last part of the URI.

        Raises:
            InputError: The place is a whole bucket or the root folder.
        """
        return self._split()[1]

    @property
    def parent(self) -> Place:
        """The folder that contains this place.

        Raises:
            InputError: The place is a whole bucket or the root folder.
        """
        return Place(self._split()[0], "", self.stores)

    @cached_property
    def store(self) -> Store:
        """The store whose root is this folder; see :meth:`Stores.open` for the errors."""
        return self.stores.open(self.location)

    def contact(self) -> None:
        """Contact the store to find out whether it can be used; it raises the errors of :attr:`store`."""
        self.store  # noqa: B018 - the first access contacts the store

    def impatient(self) -> Place:
        """Return this place with stores that do not wait for an unreachable server."""
        return replace(self, stores=Stores(is_patient=False))

    def read(self) -> bytes:
        """Return the content of this object, after comparing it with the digest of this place.

        Raises:
            NotFound: There is no such object.
            InputError: The content has a different digest, or the store cannot be used.
        """
        data = self.parent.store.read_bytes(self.name)
        if self.digest:
            self.check_digest(sha256_bytes(data))
        return data

    def write(self, data: bytes) -> Place:
        """Write this object atomically, and return its place with the digest of the content."""
        self.parent.store.write_bytes(self.name, data)
        return self.pinned(sha256_bytes(data))

    def exists(self) -> bool:
        """Tell whether there is an object here; a folder is not an object."""
        return self.parent.store.exists(self.name)

    def check_digest(self, digest: str) -> None:
        """Refuse content whose digest differs from this place's digest; a place without a digest accepts any content.

        Raises:
            InputError: The content has a different digest.
        """
        if self.digest and self.digest != digest:
            raise InputError(
                f"{self.uri}: its content has changed: expected sha256 {self.digest[:12]}…, found {digest[:12]}…; "
                "run the step that wrote it again"
            )

    def _split(self) -> tuple[FileLocation | BucketLocation, str]:
        if isinstance(self.location, FileLocation):
            if not self.location.path.name:
                raise InputError(f"{self.uri}: this is the root folder, not a file in it")
            return FileLocation(self.location.path.parent), self.location.path.name
        if not self.location.prefix:
            raise InputError(f"{self.uri}: this is a bucket, not an object in it")
        parent, _, name = self.location.prefix.rpartition("/")
        return replace(self.location, prefix=parent), name


class Stored:
    """Stored content, such as a bundle or a data set. Its place has the digest of this content.

    Attributes:
        place: Where it is stored.
    """

    place: Place

    @property
    def uri(self) -> str:
        """The URI without a digest."""
        return self.place.uri

    @property
    def digest(self) -> str:
        """The digest of the content."""
        return self.place.digest

    @property
    def reference(self) -> str:
        """The URI with the digest. Reading by it returns exactly this content, or fails if the content has changed."""
        return self.place.reference
