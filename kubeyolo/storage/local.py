"""A store that is a folder on this machine."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from kubeyolo.errors import InputError
from kubeyolo.storage.base import (
    Listing,
    NotFound,
    OnBytes,
    Store,
    StoredObject,
    check_key,
    files_below,
    files_in,
    join_key,
)
from kubeyolo.storage.checksums import remembered_sha256
from kubeyolo.storage.conditional_file import create_file, replace_file
from kubeyolo.storage.file_errors import file_errors
from kubeyolo.storage.integrity import appearing, copy_with_sha256, sha256_bytes, sha256_file, sync_folder
from kubeyolo.storage.location import FileLocation
from kubeyolo.storage.parts import grave_of, remove_remains


class LocalStore(Store):
    """Objects are files below one folder, which the first write creates.

    Keys cannot leave the folder. Symbolic links in it are followed: users who may write there are trusted.
    """

    def __init__(self, root: Path) -> None:
        with file_errors(root):
            existing = next(path for path in (root, *root.absolute().parents) if path.exists())
            if not existing.is_dir():
                raise InputError(f"{existing}: this is a file, but a store is a folder")
        self._root = root

    @property
    def uri(self) -> str:
        """The ``file://`` URI of the folder."""
        return self.uri_of("")

    def child(self, prefix: str) -> LocalStore:
        """Return the store whose root is the folder ``prefix`` of this store."""
        return LocalStore(self.local_path(prefix))

    def uri_of(self, key: str) -> str:
        """Return the ``file://`` URI of an object, quoting the characters that a URI must not have."""
        return FileLocation(self.local_path(key)).uri

    def local_path(self, key: str = "") -> Path:
        """Return the path of an object, which need not exist; the folder itself for an empty key."""
        check_key(key, allow_empty=True)
        return self._root / key if key else self._root

    def exists(self, key: str) -> bool:
        """Tell whether there is a file under ``key``."""
        path = self._file(key)
        with file_errors(path):
            return path.is_file()

    def list(self, prefix: str = "") -> Listing:
        """Return all files below the folder ``prefix``, sorted by key."""
        return self._listed(prefix, files_below(self.local_path(prefix)))

    def list_folder(self, prefix: str = "") -> Listing:
        """Return the files directly in the folder ``prefix``, sorted by key."""
        return self._listed(prefix, files_in(self.local_path(prefix)))

    def _listed(self, prefix: str, names: Iterator[str]) -> Listing:
        folder = self.local_path(prefix)
        found = []
        with file_errors(folder):
            for name in names:
                # Another process may have removed the file since it was listed.
                with suppress(FileNotFoundError):
                    facts = (folder / name).stat()
                    etag = f"{facts.st_mtime_ns:x}-{facts.st_size:x}"
                    modified = datetime.fromtimestamp(facts.st_mtime, UTC)
                    found.append(StoredObject(join_key(prefix, name), facts.st_size, etag, modified))
        return sorted(found)

    def read_bytes(self, key: str) -> bytes:
        """Return the content of a file; raise ``NotFound`` if there is no file."""
        path = self._existing(key)
        with file_errors(path):
            return path.read_bytes()

    def write_bytes(self, key: str, data: bytes) -> None:
        """Write a file under a temporary name, and rename it when it is on the disk."""
        path = self._file(key)
        with file_errors(path, len(data)), appearing(path) as part:
            part.write_bytes(data)

    def create_bytes(self, key: str, data: bytes) -> bool:
        """Write a file unless it exists, and return whether this call wrote it."""
        path = self._file(key)
        with file_errors(path, len(data)):
            return create_file(path, data)

    def read_version(self, key: str) -> tuple[bytes, str]:
        """Return the content of a file and its sha256."""
        data = self.read_bytes(key)
        return data, sha256_bytes(data)

    def replace_bytes(self, key: str, data: bytes, etag: str) -> bool:
        """Replace a file whose content has this sha256, and return whether it was replaced."""
        path = self._file(key)
        with file_errors(path, len(data)):
            return replace_file(path, data, etag)

    def get_file(self, key: str, path: Path, on_bytes: OnBytes | None = None) -> str:
        """Copy an object atomically to ``path``, and return its sha256."""
        source = self._existing(key)
        with file_errors(source):
            if path.exists() and source.samefile(path):
                return ""
            size = source.stat().st_size
        with file_errors(path, size), appearing(path) as part:
            return copy_with_sha256(source, part, on_bytes)

    def checksum(self, key: str) -> str:
        """Return the sha256 of a file; the file is read again only if it has changed."""
        path = self._existing(key)
        with file_errors(path):
            return remembered_sha256(path)

    def put_file(self, path: Path, key: str, on_bytes: OnBytes | None = None) -> str:
        """Copy a file into the store and return its sha256."""
        target = self._file(key)
        with file_errors(path):
            if target.exists() and path.samefile(target):
                return sha256_file(path)
            size = path.stat().st_size
        with file_errors(target, size), appearing(target) as part:
            return copy_with_sha256(path, part, on_bytes)

    @contextmanager
    def _undone_on_failure(self, prefix: str, names: Sequence[str]) -> Iterator[None]:
        top = self.local_path(prefix)
        new = [name for name in names if not (top / name).exists()]
        try:
            yield
        except BaseException:
            self._remove_files(top, new)
            raise

    def check_writable(self) -> None:
        """Check that the folder can be written, or made.

        Raises:
            InputError: The folder can be neither written nor made.
        """
        existing = next(path for path in (self._root, *self._root.absolute().parents) if path.exists())
        if not os.access(existing, os.W_OK | os.X_OK):
            code = errno.EROFS if os.statvfs(existing).f_flag & os.ST_RDONLY else errno.EACCES
            with file_errors(self._root):
                raise OSError(code, os.strerror(code), str(self._root))

    @staticmethod
    def _remove_files(top: Path, names: Sequence[str]) -> None:
        """Remove files below a folder, and the folders that become empty; ignore errors."""
        paths = [top / name for name in names]
        with suppress(OSError):
            for path in paths:
                path.unlink(missing_ok=True)
        folders = {parent for path in paths for parent in path.parents if parent.is_relative_to(top)}
        for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
            with suppress(OSError):
                folder.rmdir()

    def delete(self, key: str) -> None:
        """Remove a file; nothing happens if it does not exist."""
        path = self._file(key)
        with file_errors(path), suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
            sync_folder(path.parent)

    def delete_tree(self, prefix: str, first: str | None = None) -> None:
        """Remove a folder: rename it, so that it disappears at once, then remove its files."""
        folder = self.local_path(prefix)
        grave = grave_of(folder)
        with file_errors(folder):
            try:
                os.replace(folder, grave)
            except FileNotFoundError:
                return
            sync_folder(folder.parent)
            shutil.rmtree(grave, ignore_errors=True)

    def remove_remains(self, prefix: str, names: Collection[str] = ()) -> None:
        """Remove the unfinished files and folders in a folder, and next to ``names``, that no process has locked."""
        top = self.local_path(prefix)
        for folder in {top, *((top / name).parent for name in names)}:
            remove_remains(folder)

    def _file(self, key: str) -> Path:
        return self._root / check_key(key)

    def _existing(self, key: str) -> Path:
        if not self.exists(key):
            raise NotFound(f"{self._file(key)}: there is no such file")
        return self._file(key)
