"""A store that is a prefix in a bucket of MinIO, or of another server with the S3 API."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

import certifi
from minio import Minio
from minio.credentials import StaticProvider
from minio.datatypes import Object
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from urllib3.exceptions import HTTPError, IncompleteRead

from kubeyolo.errors import InputError, WorkError
from kubeyolo.storage.base import Listing, OnBytes, Store, StoredObject, check_key, for_each, join_key
from kubeyolo.storage.conditional_put import IF_ABSENT, if_etag, put_if
from kubeyolo.storage.file_errors import file_errors
from kubeyolo.storage.file_provider import FileProvider
from kubeyolo.storage.integrity import appearing, check_sha256, sha256_bytes, sha256_file
from kubeyolo.storage.location import BucketLocation
from kubeyolo.storage.minio_errors import missing_bucket, translate_errors
from kubeyolo.storage.minio_settings import MinioSettings
from kubeyolo.storage.patient_pool import Backoff, PatientPool, is_passing

CONTACT_SECONDS = 8.0
"""How long to try a store that has not answered yet: a wrong endpoint should be reported soon."""

WORK_SECONDS = 60.0
"""How long a store that has answered before may be unreachable: as long as a server takes to restart."""

_MEBIBYTE = 1 << 20
_CHUNK = _MEBIBYTE
_MAX_PARTS = 10_000
_SHA256 = "sha256"
_SHA256_HEADER = "x-amz-meta-sha256"
_CHANGED_WHILE_READ = "PreconditionFailed"
_READINGS = 3
_MOST_UPLOADS = 1000
_NO_UPLOADS = frozenset({"AccessDenied", "NotImplemented", "NoSuchUpload"})
"""Answers of a server that does not list uploads, or whose upload has ended meanwhile."""

_T = TypeVar("_T")
_Write = Callable[[bytes, int], object]
"""Takes bytes and their position in the object."""


class MinioConnection:
    """A client for one endpoint, created in every process that uses it, since processes cannot share sockets."""

    def __init__(self, settings: MinioSettings, seconds: float, connections: int = 32) -> None:
        self.settings = settings
        self.seconds = seconds
        self.connections = connections
        self._client: Minio | None = None
        self._process = 0
        self._lock = threading.Lock()

    @property
    def client(self) -> Minio:
        """The client of this process."""
        with self._lock:
            if self._client is None or self._process != os.getpid():
                self._client, self._process = self._connect(), os.getpid()
            return self._client

    def _connect(self) -> Minio:
        pool = PatientPool(
            self.seconds,
            self.connections,
            cert_reqs="CERT_REQUIRED",
            ca_certs=os.path.expanduser(os.environ.get("SSL_CERT_FILE", "")) or certifi.where(),
        )
        settings = self.settings
        fixed = StaticProvider(settings.access_key, settings.secret_key, settings.session_token or None)
        return Minio(
            endpoint=settings.endpoint,
            credentials=FileProvider(settings.credentials_file) if settings.credentials_file else fixed,
            secure=settings.secure,
            region=settings.region or None,
            http_client=pool,
        )

    def __reduce__(self) -> tuple[type[MinioConnection], tuple[MinioSettings, float, int]]:
        return MinioConnection, (self.settings, self.seconds, self.connections)


class MinioStore(Store):
    """Objects below a prefix of a bucket.

    Every object has the sha256 of its content as metadata; a reader checks it. Large files are transferred in parts,
    several at a time in both directions, and only a failed part is repeated.
    """

    def __init__(
        self,
        connection: MinioConnection,
        location: BucketLocation,
        part_size: int = 16 * _MEBIBYTE,
        parallel_parts: int = 4,
    ) -> None:
        """Make a store for a prefix of a bucket, without contacting the server.

        Args:
            connection: The server.
            location: Bucket and prefix.
            part_size: Size in bytes of the parts of a large file, at least 5 MiB.
            parallel_parts: How many parts of one file are transferred at the same time.
        """
        self._connection = connection
        self._location = location
        self._part_size = part_size
        self._parallel_parts = parallel_parts

    @staticmethod
    def connect(settings: MinioSettings, location: BucketLocation, work_seconds: float = WORK_SECONDS) -> MinioStore:
        """Open a store after checking that its bucket exists.

        Raises:
            InputError: Within about 10 seconds, if the endpoint does not answer, refuses the credentials, or has no
                such bucket; buckets are never created here.
            WorkError: The store did not answer for ``settings.patience`` seconds.
        """
        patience = settings.patience
        probe = MinioConnection(settings, max(patience, CONTACT_SECONDS), connections=1)
        with translate_errors(settings, location.bucket, location.uri, known=patience > 0.0):
            try:
                there = _exists(probe.client, location)
            except ValueError as error:
                raise InputError(f"{location.uri}: {error} (MINIO_ENDPOINT is {settings.endpoint!r})") from error
        if not there:
            raise missing_bucket(settings, location.bucket, location.uri)
        return MinioStore(MinioConnection(settings, max(patience, work_seconds)), location)

    @property
    def uri(self) -> str:
        """The ``minio://`` or ``s3://`` URI of the prefix."""
        return self._location.uri

    def child(self, prefix: str) -> MinioStore:
        """Return the store whose root is the folder ``prefix`` of this store."""
        return self.at(self._folder(prefix))

    def at(self, prefix: str) -> MinioStore:
        """Return the store for a prefix of the same bucket, over the same connection."""
        location = replace(self._location, prefix=prefix)
        return MinioStore(self._connection, location, self._part_size, self._parallel_parts)

    def uri_of(self, key: str) -> str:
        """Return the URI of an object; the characters of its key are not quoted."""
        return join_key(self.uri, check_key(key, allow_empty=True))

    def exists(self, key: str) -> bool:
        """Tell whether there is an object under ``key``."""
        with self._translate_errors(key):
            try:
                self._stat(self._object(key))
            except S3Error as error:
                if error.code != "NoSuchKey":
                    raise
                return False
        return True

    def list(self, prefix: str = "") -> Listing:
        """Return all objects below the folder ``prefix``, sorted by key."""
        return self._listed(prefix, recursive=True)

    def list_folder(self, prefix: str = "") -> Listing:
        """Return the objects directly in the folder ``prefix``, sorted by key."""
        return self._listed(prefix, recursive=False)

    def _listed(self, prefix: str, recursive: bool) -> Listing:
        root = self._location.prefix
        folder = self._folder(prefix)
        skip = len(root) + 1 if root else 0
        with self._translate_errors(prefix):
            found = self._client.list_objects(self._bucket, prefix=folder and f"{folder}/", recursive=recursive)
            return sorted(
                StoredObject(str(entry.object_name)[skip:], int(entry.size or 0), str(entry.etag), entry.last_modified)
                for entry in found
                if not entry.is_dir
            )

    def read_bytes(self, key: str) -> bytes:
        """Return the content of an object, checked; raise ``NotFound`` if there is no object."""
        return self.read_version(key)[0]

    def read_version(self, key: str) -> tuple[bytes, str]:
        """Return the content of an object, checked, and its etag; raise ``NotFound`` if there is no object."""
        name = self._object(key)
        backoff = Backoff(self._connection.seconds)
        with self._translate_errors(key):
            while True:
                # One request gives content and metadata of the same version, however often it is replaced.
                response = self._client.get_object(self._bucket, name)
                try:
                    data = bytes(response.read())
                    break
                except HTTPError as error:
                    if not is_passing(error) or not backoff.sleep():
                        raise
                finally:
                    response.close()
                    response.release_conn()
        expected = response.headers.get(_SHA256_HEADER)
        if expected:
            check_sha256(self.uri_of(key), expected, sha256_bytes(data))
        return data, str(response.headers.get("etag", "")).strip('"')

    def write_bytes(self, key: str, data: bytes) -> None:
        """Write an object; an existing object is replaced only when all data has arrived."""
        self._put(key, io.BytesIO(data), len(data), sha256_bytes(data))

    def create_bytes(self, key: str, data: bytes) -> bool:
        """Write an object unless it exists, and return whether this call wrote it."""
        return self._put_if(key, data, IF_ABSENT)

    def replace_bytes(self, key: str, data: bytes, etag: str) -> bool:
        """Replace an object that still has this etag, and return whether this call replaced it."""
        return self._put_if(key, data, if_etag(etag))

    def get_file(self, key: str, path: Path, on_bytes: OnBytes | None = None) -> str:
        """Write an object to ``path``, which appears when its checksum is right; return the checksum."""

        def get(facts: Object) -> str:
            with appearing(path) as part:
                self._download(facts, part, on_bytes)
                expected = self._sha256(facts)
                if expected:
                    check_sha256(self.uri_of(key), expected, sha256_file(part))
                return expected

        with self._translate_errors(key), file_errors(path):
            return self._while_unchanged(key, get)

    def checksum(self, key: str) -> str:
        """Return the sha256 in the metadata of an object."""
        with self._translate_errors(key):
            return self._sha256(self._stat(self._object(key)))

    def put_file(self, path: Path, key: str, on_bytes: OnBytes | None = None) -> str:
        """Store a file and return its sha256."""
        with file_errors(path), path.open("rb") as file:
            sha256 = sha256_file(path)
            size = os.fstat(file.fileno()).st_size
            reader = _StoppableReader(file, on_bytes)
            # The client removes the parts already sent when reading fails, but not when Ctrl-C interrupts its own
            # code. So the client runs in a thread of its own, and Ctrl-C in this thread makes its reading fail.
            with ThreadPoolExecutor(1, thread_name_prefix="kubeyolo-put") as pool:
                upload = pool.submit(self._put, key, reader, size, sha256)
                try:
                    upload.result()
                except BaseException:
                    reader.stop()
                    raise
        return sha256

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if it does not exist."""
        with self._translate_errors(key):
            self._client.remove_object(self._bucket, self._object(key))

    def delete_tree(self, prefix: str, first: str | None = None) -> None:
        """Remove every object below the folder ``prefix``, ``first`` before all others."""
        if first is not None:
            self.delete(join_key(prefix, first))
        names = [DeleteObject(self._object(stored.key)) for stored in self.list(prefix)]
        with self._translate_errors(prefix):
            for problem in self._client.remove_objects(self._bucket, names):
                raise WorkError(f"{self.uri_of(prefix)}: {problem.name} was not removed: {problem.message}")

    def remove_remains(self, prefix: str, names: Collection[str] = ()) -> None:
        """End the unfinished uploads of files in a folder; without permission to list uploads, they stay.

        A server need not list uploads by the start of a key, so each file is named.
        """
        for name in names:
            key = join_key(prefix, name)
            with self._translate_errors(key):
                self._end_uploads(self._object(key))

    def _end_uploads(self, name: str) -> None:
        try:
            found = self._client._list_multipart_uploads(self._bucket, prefix=name, max_uploads=_MOST_UPLOADS)
            for upload in found.uploads:
                if upload.object_name == name:
                    self._client._abort_multipart_upload(self._bucket, name, upload.upload_id)
        except S3Error as error:
            if error.code not in _NO_UPLOADS:
                raise

    def _put(self, key: str, stream: _Readable, size: int, sha256: str) -> None:
        name = self._object(key)
        part_size = max(self._part_size, -(-size // _MAX_PARTS))
        with self._translate_errors(key):
            try:
                self._client.put_object(
                    self._bucket,
                    name,
                    stream,
                    size,
                    metadata={_SHA256: sha256},
                    part_size=part_size,
                    num_parallel_uploads=self._parallel_parts,
                )
            except S3Error as error:
                # If the response to the request that joins the parts is lost, the repeated request finds them joined.
                if error.code != "NoSuchUpload":
                    raise
            if size > part_size:
                facts = self._stat(name)
                if facts.size != size or self._sha256(facts) != sha256:
                    raise WorkError(
                        f"{self.uri_of(key)}: the stored object differs from the sent file; run the same command again"
                    )

    def _put_if(self, key: str, data: bytes, condition: dict[str, str]) -> bool:
        metadata = {_SHA256_HEADER: sha256_bytes(data)}
        name, seconds = self._object(key), self._connection.seconds
        with self._translate_errors(key):
            return put_if(self._client, self._bucket, name, data, condition, metadata, seconds)

    def _while_unchanged(self, key: str, read: Callable[[Object], _T]) -> _T:
        """Read an object; if it is replaced meanwhile, read the new object from its beginning."""
        for final in (False,) * (_READINGS - 1) + (True,):
            try:
                return read(self._stat(self._object(key)))
            except S3Error as error:
                if error.code != _CHANGED_WHILE_READ or final:
                    raise
        raise AssertionError

    def _stat(self, name: str) -> Object:
        return self._client.stat_object(self._bucket, name)

    def _download(self, facts: Object, part: Path, on_bytes: OnBytes | None) -> None:
        """Write the content of an object to ``part``, in ranges that are transferred at the same time."""
        size = int(facts.size or 0)
        with part.open("wb") as file:
            file.truncate(size)

            def write(data: bytes, position: int) -> None:
                view = memoryview(data)
                while view:
                    written = os.pwrite(file.fileno(), view, position)
                    view, position = view[written:], position + written
                if on_bytes is not None:
                    on_bytes(len(data))

            def fetch(start: int) -> None:
                self._fetch(facts, start, min(start + self._part_size, size), write)

            for_each(fetch, [*range(0, size, self._part_size)], self._parallel_parts)

    def _fetch(self, facts: Object, start: int, end: int, write: _Write) -> None:
        """Pass the bytes from ``start`` to ``end`` of an object to ``write``; continue where a connection broke."""
        position = start
        backoff = Backoff(self._connection.seconds)
        while position < end:
            begun = position
            response = self._client.get_object(
                self._bucket,
                str(facts.object_name),
                offset=position,
                length=end - position,
                request_headers=if_etag(str(facts.etag)),
            )
            try:
                for data in response.stream(_CHUNK):
                    write(data, position)
                    position += len(data)
                if position < end:
                    raise IncompleteRead(position - begun, end - position)
            except HTTPError as error:
                if position > begun:
                    backoff = Backoff(self._connection.seconds)
                if not is_passing(error) or not backoff.sleep():
                    raise
            finally:
                response.close()
                response.release_conn()

    @staticmethod
    def _sha256(facts: Object) -> str:
        return str((facts.metadata or {}).get(_SHA256_HEADER, ""))

    def _large_size(self) -> int | None:
        return self._part_size

    def _object(self, key: str) -> str:
        return join_key(self._location.prefix, check_key(key))

    def _folder(self, prefix: str) -> str:
        return join_key(self._location.prefix, check_key(prefix, allow_empty=True))

    def _translate_errors(self, key: str) -> AbstractContextManager[None]:
        return translate_errors(self._connection.settings, self._bucket, self.uri_of(key))

    @property
    def _bucket(self) -> str:
        return self._location.bucket

    @property
    def _client(self) -> Minio:
        return self._connection.client


def _exists(client: Minio, location: BucketLocation) -> bool:
    """Tell whether a bucket exists; a key that is limited to folders may only list these folders."""
    try:
        return client.bucket_exists(location.bucket)
    except S3Error as error:
        if error.code != "AccessDenied" or not location.prefix:
            raise
    next(iter(client.list_objects(location.bucket, prefix=f"{location.prefix}/")), None)
    return True


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _StoppableReader:
    """A file that reports how much is read, and that cannot be read after :meth:`stop`."""

    def __init__(self, file: BinaryIO, on_bytes: OnBytes | None) -> None:
        self._file = file
        self._on_bytes = on_bytes
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def read(self, size: int = -1, /) -> bytes:
        if self._stopped.is_set():
            raise InterruptedError("the upload was stopped")
        data = self._file.read(size)
        if self._on_bytes is not None:
            self._on_bytes(len(data))
        return data
