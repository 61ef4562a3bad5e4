"""Keys of a store that are limited to a few folders, and that expire: from a store with the STS API, such as MinIO."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from xml.etree.ElementTree import ParseError

import certifi
from minio.credentials import AssumeRoleProvider
from urllib3 import PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError

from kubeyolo.errors import InputError, KubeyoloError, one_line
from kubeyolo.storage.location import BucketLocation
from kubeyolo.storage.minio_settings import MinioSettings

LONGEST_SECONDS = 2 * 86400
_SECONDS = (LONGEST_SECONDS, 12 * 3600, 3600)
"""Durations of a key: a store that refuses a long one is asked for a shorter one."""

_WILDCARDS = frozenset("*?$")
_READ = ("s3:GetObject",)
_WRITE = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")


class NoScopedKey(KubeyoloError):
    """The store does not give out keys that are limited to folders, or not with these credentials."""


class StoreUnreachable(KubeyoloError):
    """The store does not answer."""


@dataclass(frozen=True, kw_only=True)
class ScopedKey:
    """A key that expires.

    Attributes:
        document: The key in the form of AWS's file of credentials.
        seconds: How long it is valid, in seconds, from when it was made.
    """

    document: str
    seconds: float


def request_key(
    settings: MinioSettings, reads: Iterable[BucketLocation], writes: Iterable[BucketLocation]
) -> ScopedKey:
    """Return a new key that can read some folders, and read and write others.

    Args:
        settings: The store, and the credentials that the key is derived from.
        reads: Folders that the key can read.
        writes: Folders in which it can also write and delete.

    Raises:
        InputError: The name of a folder contains a wildcard of policies.
        NoScopedKey: The store refuses.
        StoreUnreachable: The store does not answer.
    """
    reads, writes = [*reads], [*writes]
    for each in (*reads, *writes):
        if _WILDCARDS & {*each.prefix}:
            raise InputError(
                f"{each.uri}: the folders of a job cannot have *, ? or $ in their names; choose other names"
            )
    policy, reason = json.dumps(key_policy(reads, writes)), ""
    for seconds in _SECONDS:
        provider = AssumeRoleProvider(
            sts_endpoint=f"{'https' if settings.secure else 'http'}://{settings.endpoint}",
            access_key=settings.access_key,
            secret_key=settings.secret_key,
            duration_seconds=seconds,
            policy=policy,
            region=settings.region or "us-east-1",
            http_client=_pool(),
        )
        try:
            key = provider.retrieve()
        except HTTPError as error:
            raise StoreUnreachable(
                f"the store at {settings.endpoint} does not answer ({one_line(error, 200)})"
            ) from error
        except (ValueError, KeyError, AttributeError, ParseError) as error:
            reason = one_line(error, 200)
            continue
        # The client leaves the time zone out.
        expires = key.expiration.replace(tzinfo=UTC) if key.expiration else None
        left = (expires - datetime.now(UTC)).total_seconds() if expires else float(seconds)
        lines = (
            "[default]",
            f"aws_access_key_id = {key.access_key}",
            f"aws_secret_access_key = {key.secret_key}",
            f"aws_session_token = {key.session_token or ''}",
        )
        return ScopedKey(document="".join(f"{line}\n" for line in lines), seconds=left)
    raise NoScopedKey(f"the store at {settings.endpoint} gives out no keys for folders ({reason})")


def key_policy(reads: Sequence[BucketLocation], writes: Sequence[BucketLocation]) -> dict[str, Any]:
    """Return a policy of S3 that allows reading some folders, and reading and writing others, and nothing else."""
    statements = [_allow(actions, [each]) for actions, places in ((_READ, reads), (_WRITE, writes)) for each in places]
    folders: dict[str, list[str]] = {}
    for each in (*reads, *writes):
        folders.setdefault(each.bucket, []).append(each.prefix)
    for bucket, prefixes in folders.items():
        statements.append({"Effect": "Allow", "Action": ["s3:GetBucketLocation"], "Resource": [_arn(bucket)]})
        listing: dict[str, Any] = {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [_arn(bucket)]}
        if all(prefixes):
            patterns = [pattern for prefix in prefixes for pattern in (prefix, f"{prefix}/*")]
            listing["Condition"] = {"StringLike": {"s3:prefix": patterns}}
        statements.append(listing)
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(actions: Sequence[str], places: Iterable[BucketLocation]) -> dict[str, Any]:
    resources = [
        resource
        for each in places
        for resource in (
            [_arn(f"{each.bucket}/{each.prefix}"), _arn(f"{each.bucket}/{each.prefix}/*")]
            if each.prefix
            else [_arn(f"{each.bucket}/*")]
        )
    ]
    return {"Effect": "Allow", "Action": list(actions), "Resource": resources}


def _arn(path: str) -> str:
    return f"arn:aws:s3:::{path}"


def _pool() -> PoolManager:
    return PoolManager(
        timeout=Timeout(connect=5.0, read=20.0),
        retries=Retry(1, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504)),
        cert_reqs="CERT_REQUIRED",
        ca_certs=os.path.expanduser(os.environ.get("SSL_CERT_FILE", "")) or certifi.where(),
    )
