"""Objects that are written only if they do not exist yet, or only if they have a certain version: conditional PUT."""

from __future__ import annotations

import uuid

from minio import Minio
from minio.error import S3Error

from kubeyolo.storage.patient_pool import Backoff

IF_ABSENT = {"If-None-Match": "*"}

_REFUSED = "PreconditionFailed"
_CONFLICT = "ConditionalRequestConflict"
_MISSING = "NoSuchKey"
_WRITER_HEADER = "x-amz-meta-writer"


def if_etag(etag: str) -> dict[str, str]:
    """Return the condition that an object still has this etag."""
    return {"If-Match": f'"{etag}"'}


def put_if(
    client: Minio,
    bucket: str,
    name: str,
    data: bytes,
    condition: dict[str, str],
    metadata: dict[str, str],
    seconds: float,
) -> bool:
    """Write an object under a condition, and return whether this call wrote it.

    If the answer to a request is lost, the request is repeated. The server then refuses it, since the first request has
    already written the object. So each call writes a unique name into the metadata, and recognizes its object by this
    name.

    Args:
        client: Client of the server.
        bucket: Name of the bucket.
        name: Name of the object.
        data: Content of the object.
        condition: ``IF_ABSENT``, or a condition from :func:`if_etag`.
        metadata: Headers of the object.
        seconds: How long to repeat a request that the server refuses because of a simultaneous request.

    Raises:
        S3Error: The server refuses the request for a different reason than the condition.
    """
    writer = uuid.uuid4().hex
    backoff = Backoff(seconds)
    while True:
        try:
            # put_object of the client takes no condition. This is the request that put_object makes, with the
            # same signature, region and connections.
            client._execute(
                method="PUT",
                bucket_name=bucket,
                object_name=name,
                body=data,
                headers={**metadata, **condition, _WRITER_HEADER: writer},
            )
            return True
        except S3Error as error:
            if error.code == _CONFLICT and backoff.sleep():
                continue
            if error.code in (_REFUSED, _CONFLICT):
                return _writer(client, bucket, name) == writer
            if error.code == _MISSING:
                return False
            raise


def _writer(client: Minio, bucket: str, name: str) -> str:
    try:
        return str((client.stat_object(bucket, name).metadata or {}).get(_WRITER_HEADER, ""))
    except S3Error as error:
        if error.code != _MISSING:
            raise
        return ""
