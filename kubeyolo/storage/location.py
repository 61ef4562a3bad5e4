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
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class FileLocation:
    """A path of this machine, absolute."""

    path: Path

    @property
    def uri(self) -> str:
        """The ``file://`` URI, with the characters quoted that a URI must not have."""
        return "file://" + quote(str(self.path))


@dataclass(frozen=True, slots=True)
class BucketLocation:
    """A prefix, possibly empty, in a bucket of an object store; ``scheme`` is minio or s3."""

    scheme: str
    bucket: str
    prefix: str

    @property
    def uri(self) -> str:
        """The URI, without a slash at the end; keys stand in it as they are."""
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")


def parse(uri: str) -> FileLocation | BucketLocation:
    """Tell what a URI points at, without looking whether it is there.

    Raises:
        InputError: The scheme is unknown, the bucket's name is not possible, or the key leaves its root.
    """
    if not uri:
        raise InputError("the URI of a store is empty; give a folder or minio://bucket/prefix")
    match = _SCHEME.fullmatch(uri)
    if match is None:
        return FileLocation(_absolute_path(uri))
    scheme, rest = match[1].lower(), match[2]
    if scheme not in SCHEMES:
        raise InputError(f"{uri}: stores of kind {scheme!r} are not known{suggest(scheme, SCHEMES)}")
    if scheme == "file":
        quoted = rest.removeprefix("localhost") if rest.startswith("localhost/") else rest
        path = unquote(quoted, errors="surrogateescape")
        if not path.startswith("/"):
            raise InputError(f"{uri}: a file URI has three slashes and a full path, as file:///data/store")
        return FileLocation(Path(_utf8(os.path.normpath(path))))
    bucket, _, prefix = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise InputError(
            f"{uri}: {bucket!r} cannot be the name of a bucket: 3 to 63 lower-case letters, digits, '-' and '.'"
        )
    return BucketLocation(scheme, bucket, check_key(prefix.rstrip("/"), allow_empty=True))


def _absolute_path(text: str) -> Path:
    """Return a path as an absolute one.

    Raises:
        InputError: It begins with the home of a user who has none, the current folder is gone, or a name in it is not
            UTF-8: manifests and records, in which paths stand, are.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        home = Path(text).parts[0]
        raise InputError(f"{text}: there is no home folder for {home!r}; write the whole path, or ./{text}") from None
    try:
        return Path(_utf8(os.path.abspath(path)))
    except FileNotFoundError:
        raise InputError(f"{text}: the current folder is not there any more; change to another one") from None


def _utf8(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{path}: a name in this path is not UTF-8; rename it, or make a link to it (ln -s) and give that"
        ) from None
    return path


def absolute(uri: str) -> str:
    """Return a path as an absolute one, so that it is found from any folder; other URIs in their usual form."""
    location = parse(uri)
    return str(location.path) if isinstance(location, FileLocation) else location.uri
