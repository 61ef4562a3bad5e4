"""What a URI points at: ``file:///…`` or a plain path, ``minio://bucket/key`` or ``s3://bucket/key``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from kubeyolo.errors import InputError, suggest
from kubeyolo.storage.base import check_key

SCHEMES = ("file", "minio", "s3")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_OF_THE_KERNEL = ("/proc/", "/sys/")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class FileLocation:
    """An absolute path on this machine."""

    path: Path

    @property
    def uri(self) -> str:
        """The ``file://`` URI, quoting the characters that a URI must not have."""
        return "file://" + quote(str(self.path))


@dataclass(frozen=True, slots=True)
class BucketLocation:
    """A prefix, possibly empty, in a bucket of an object store; ``scheme`` is minio or s3."""

    scheme: str
    bucket: str
    prefix: str

    @property
    def uri(self) -> str:
        """The URI, without a slash at the end; characters of keys are not quoted."""
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")


def parse(uri: str) -> FileLocation | BucketLocation:
    """Return the location that a URI points at, without checking that it exists.

    Raises:
        InputError: The scheme is unknown, the bucket's name is not allowed, or the key leaves its root.
    """
    if not uri:
        raise InputError("the URI of a store is empty; give a folder or minio://bucket/prefix")
    match = _SCHEME.fullmatch(uri)
    if match is None and uri.startswith("://"):
        raise InputError(f"{uri}: the kind of the store is missing; known: {', '.join(SCHEMES)}")
    if match is None:
        return FileLocation(_absolute_path(uri))
    scheme, rest = match[1].lower(), match[2]
    if scheme not in SCHEMES:
        raise InputError(f"{uri}: unknown kind of store {scheme!r}{suggest(scheme, SCHEMES)}")
    if scheme == "file":
        quoted = rest.removeprefix("localhost") if rest.startswith("localhost/") else rest
        path = unquote(quoted, errors="surrogateescape")
        if not path.startswith("/"):
            raise InputError(f"{uri}: a file URI has three slashes and a full path, such as file:///data/store")
        return FileLocation(Path(_utf8(os.path.normpath(path))))
    bucket, _, prefix = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise InputError(
            f"{uri}: {bucket!r} cannot be the name of a bucket: 3 to 63 lower-case letters, digits, '-' and '.'"
        )
    return BucketLocation(scheme, bucket, check_key(prefix.rstrip("/"), allow_empty=True))


def _absolute_path(text: str) -> Path:
    """Return a path as an absolute path.

    Raises:
        InputError: The path starts with ``~user`` of a user without a home folder, the current folder no longer exists,
            or a name in the path is not UTF-8, the encoding of manifests and records.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        home = Path(text).parts[0]
        raise InputError(f"{text}: there is no home folder for {home!r}; write the whole path, or ./{text}") from None
    try:
        return Path(_utf8(os.path.abspath(path)))
    except FileNotFoundError:
        raise InputError(f"{text}: the current folder no longer exists; change to a different folder") from None


def _utf8(path: str) -> str:
    if path.startswith(_OF_THE_KERNEL):
        raise InputError(
            f"{path}: in a file system of the kernel, no folder can be made there; choose a different folder"
        )
    if "\0" in path:
        raise InputError(f"{path!r}: a path cannot have a zero byte; correct it")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{path}: a name in this path is not UTF-8; rename it, or make a link to it (ln -s) and give the path of "
            "the link"
        ) from None
    return path


def absolute(uri: str) -> str:
    """Return a path as an absolute path, which is valid in every folder, and any other URI in its normal form."""
    location = parse(uri)
    return str(location.path) if isinstance(location, FileLocation) else location.uri
