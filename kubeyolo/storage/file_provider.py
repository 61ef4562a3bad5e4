"""Credentials for the client of a store from a file that is replaced before they expire."""

from __future__ import annotations

import os

from minio.credentials import Credentials, Provider

from kubeyolo.errors import InputError, one_line
from kubeyolo.storage.credentials_file import read_credentials


class FileProvider(Provider):
    """The credentials in a file, which is read again when it has changed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._version: tuple[int, int] | None = None
        self._current: Credentials | None = None

    def retrieve(self) -> Credentials:
        """Return the current credentials.

        Raises:
            InputError: The file cannot be read, and has not been read before.
        """
        try:
            status = os.stat(self._path)
            version = (status.st_mtime_ns, status.st_ino)
            if version != self._version or self._current is None:
                access_key, secret_key, token = read_credentials("object store", self._path)
                self._current, self._version = Credentials(access_key, secret_key, token or None), version
        except (OSError, InputError, ValueError) as error:
            # The previous credentials may be valid while the file is being replaced.
            if self._current is None:
                if isinstance(error, InputError):
                    raise
                raise InputError(f"{self._path}: credentials cannot be read: {one_line(error, 200)}") from error
        return self._current
