"""The interface of every store: named byte objects under one root, read and written whole."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from kubeyolo.errors import InputError

PART_SUFFIX = ".kubeyolo-part"
"""Ending of files and folders that are being written or removed; no listing shows them."""

OnBytes = Callable[[int], None]
"""Called with the number of bytes moved since the last call, possibly from another thread."""

_T = TypeVar("_T")

_MAX_SEGMENT_BYTES = 255
_MAX_KEY_BYTES = 1024


class NotFound(InputError):
    """There is no object under this key."""


@dataclass(frozen=True, slots=True, order=True)
class StoredObject:
    """One entry of a listing; ``etag`` changes with the content."""

    key: str
    size: int
    etag: str
    modified: datetime | None = field(default=None, compare=False)


Listing = list[StoredObject]
"""Objects sorted by key."""


def check_key(key: str, allow_empty: bool = False) -> str:
    """Return ``key`` if it names an object below the root of a store.

    Raises:
        InputError: The key is absolute, leaves the root, has empty parts, or is not possible in every kind of store.
    """
    if not key and allow_empty:
        return key
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise InputError(f"{key!r} is not a key of a store: its parts must not be empty, '.' or '..'")
    if any(ord(character) < 32 or 0xD800 <= ord(character) < 0xE000 for character in key):
        raise InputError(f"{key!r} is not a key of a store: it has control characters")
    if len(key.encode()) > _MAX_KEY_BYTES or any(len(part.encode()) > _MAX_SEGMENT_BYTES for part in parts):
        raise InputError(
            f"{key[:60]!r}… is not a key of a store: longer than {_MAX_KEY_BYTES} bytes, "
            f"or a part of it longer than {_MAX_SEGMENT_BYTES}"
        )
    if any(part.endswith(PART_SUFFIX) for part in parts):
        raise InputError(f"{key!r} is not a key of a store: names ending in {PART_SUFFIX} are reserved")
    return key


def join_key(*parts: str) -> str:
    """Join parts of a key, leaving out empty parts."""
    return "/".join(part for part in parts if part)


class Store(ABC):
    """Objects under one root. Keys are relative to it, with ``/`` between their parts.

    Writes are atomic: an interrupted write leaves the old content, or no object.
    All methods raise ``InputError`` with one line if the store cannot be used. Several threads may call them.
    """

    threads = 8
    """How many files of a tree are moved at the same time."""

    @property
    @abstractmethod
    def uri(self) -> str:
        """The URI of the root, without a slash at the end."""

    @abstractmethod
    def child(self, prefix: str) -> Store:
        """Return the store whose root is the folder ``prefix`` of this store."""

    @abstractmethod
    def uri_of(self, key: str) -> str:
        """Return the URI of an object, or of the root for an empty key."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Tell whether there is an object under ``key`` (a folder is not an object)."""

    @abstractmethod
    def list(self, prefix: str = "") -> Listing:
        """Return all objects below the folder ``prefix``, at any depth, sorted by key."""

    @abstractmethod
    def list_folder(self, prefix: str = "") -> Listing:
        """Return the objects directly in the folder ``prefix``, not in folders below it, sorted by key."""

    @abstractmethod
    def read_bytes(self, key: str) -> bytes:
        """Return the content of an object; raise ``NotFound`` if there is no object."""

    @abstractmethod
    def write_bytes(self, key: str, data: bytes) -> None:
        """Write an object, replacing an existing object."""

    @abstractmethod
    def create_bytes(self, key: str, data: bytes) -> bool:
        """Write an object unless it exists, and return whether this call wrote it.

        If several threads, processes or machines create the same object, only one of them writes it. A caller that did
        not write the object can read it, and compare it with its own content.
        """

    @abstractmethod
    def read_version(self, key: str) -> tuple[bytes, str]:
        """Return the content of an object and the etag of that content; raise ``NotFound`` if there is no object.

        Pass this etag to ``replace_bytes``; a listing may have a different etag for the object.
        """

    @abstractmethod
    def replace_bytes(self, key: str, data: bytes, etag: str) -> bool:
        """Replace an object if its content still has this etag, and return whether this call replaced it.

        If several callers replace the same content, only one of them writes. If there is no object, nothing is written.
        """

    @abstractmethod
    def get_file(self, key: str, path: Path, on_bytes: OnBytes | None = None) -> str:
        """Write the content of an object to the file ``path``, atomically.

        Returns:
            The sha256 of the file if the transfer computed it, else an empty string.
        """

    @abstractmethod
    def put_file(self, path: Path, key: str, on_bytes: OnBytes | None = None) -> str:
        """Store a file under ``key`` and return its sha256 in hexadecimal digits."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if it does not exist."""

    @abstractmethod
    def delete_tree(self, prefix: str, first: str | None = None) -> None:
        """Remove every object below the folder ``prefix``.

        ``first`` is removed before all others: pass the manifest, so that no reader finds a manifest without files.
        """

    @abstractmethod
    def checksum(self, key: str) -> str:
        """Return the sha256 of an object without reading its content; an empty string if the store has no checksum."""

    def local_path(self, key: str = "") -> Path | None:
        """Return the path of an object if it is a file on this machine, which need not be copied; otherwise None."""
        check_key(key, allow_empty=True)
        return None

    def check_writable(self) -> None:  # noqa: B027 - by default only a write can tell
        """Check that the store can be written, as far as this is possible without writing; for use before long work.

        Raises:
            InputError: The store cannot be written.
        """

    @abstractmethod
    def remove_remains(self, prefix: str, names: Collection[str] = ()) -> None:
        """Remove what interrupted writes in the folder ``prefix`` have left.

        Args:
            prefix: The folder. Unfinished files of living processes in a folder of this machine stay.
            names: Files below ``prefix`` whose unfinished uploads to an object store are ended, even those of living
                processes: only the owner of these files may name them.
        """

    def get_tree(self, prefix: str, folder: Path, on_bytes: OnBytes | None = None) -> None:
        """Write every object below the folder ``prefix`` to ``folder``; raise ``NotFound`` if there is no object."""
        objects = self.list(prefix)
        if not objects:
            raise NotFound(f"{self.uri_of(prefix)}: there is no object in this folder; correct the URI")
        skip = len(prefix) + 1 if prefix else 0

        def get(stored: StoredObject) -> None:
            self.get_file(stored.key, folder / stored.key[skip:], on_bytes)

        self._move_all(get, objects, lambda stored: stored.size)

    def put_tree(
        self,
        folder: Path,
        prefix: str,
        last: str | None = None,
        on_bytes: OnBytes | None = None,
        left_out: Collection[str] = (),
    ) -> None:
        """Store every file below ``folder`` under the folder ``prefix``, except names in ``left_out``.

        ``last`` names the file that shows readers that all other files are complete. It is written after them. An
        older file of this name is removed first if another file will be replaced by different content.
        """
        if not folder.is_dir():
            raise InputError(f"{folder}: there is no such folder")
        check_key(prefix, allow_empty=True)
        names = [name for name in files_below(folder) if name != last and name not in left_out]
        if last is not None:
            if not (folder / last).is_file():
                raise InputError(f"{folder}: there is no {last}, the file that marks the folder as complete")
            if self._changes(folder, prefix, names):
                self.delete(join_key(prefix, last))

        def put(name: str) -> None:
            self.put_file(folder / name, join_key(prefix, name), on_bytes)

        with self._undone_on_failure(prefix, names if last is None else [*names, last]):
            self._move_all(put, names, lambda name: (folder / name).stat().st_size)
            if last is not None:
                put(last)

    def _changes(self, folder: Path, prefix: str, names: Sequence[str]) -> bool:
        """Tell whether files of ``folder`` replace different content below ``prefix``."""
        present = {stored.key: stored.size for stored in self.list(prefix)}
        return any(
            key in present and (present[key] != path.stat().st_size or self.checksum(key) != _sha256(path))
            for key, path in ((join_key(prefix, name), folder / name) for name in names)
        )

    def _undone_on_failure(self, prefix: str, names: Sequence[str]) -> AbstractContextManager[None]:
        """If the block fails, remove the files that it added below ``prefix``. This default lets the files stay."""
        return nullcontext()

    def _move_all(self, move: Callable[[_T], None], items: Iterable[_T], size: Callable[[_T], int]) -> None:
        """Move large files first: one at a time, by several threads. Then move small files, several at a time."""
        limit = self._large_size()
        small = []
        for item in items:
            if limit is not None and size(item) > limit:
                move(item)
            else:
                small.append(item)
        for_each(move, small, self.threads)

    def _large_size(self) -> int | None:
        """Return the size in bytes above which several threads move one file; None: always one thread."""
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(folder: Path) -> Iterator[str]:
    """Yield the names, relative to ``folder`` with ``/``, of all complete files below it, in any order.

    Links to files and to folders are followed, as they are when a data set is read; a folder that contains the link to
    it is not entered again.
    """
    above: dict[str, tuple[str, ...]] = {str(folder): (os.path.realpath(folder),)}
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = (*above.pop(parent), os.path.realpath(parent))
        kept = []
        for name in folders:
            inside, place = real, os.path.join(parent, name)
            if os.path.islink(place):
                target = os.path.realpath(place)
                if any(each == target or each.startswith(target + os.sep) for each in real):
                    continue
                inside = (*real, target)
            if not name.endswith(PART_SUFFIX):
                kept.append(name)
                above[place] = inside
        folders[:] = kept
        for name in names:
            path = Path(parent, name)
            if not name.endswith(PART_SUFFIX) and path.is_file():
                yield path.relative_to(folder).as_posix()


def files_in(folder: Path) -> Iterator[str]:
    """Yield the names of the complete files directly in ``folder``, in any order; none if it does not exist."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file() and not entry.name.endswith(PART_SUFFIX):
                yield entry.name


def for_each(work: Callable[[_T], None], items: list[_T], threads: int) -> None:
    """Call ``work`` for every item from a few threads; the first error cancels waiting calls and is raised."""
    if len(items) < 2:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(min(threads, len(items)), thread_name_prefix="kubeyolo-store") as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
