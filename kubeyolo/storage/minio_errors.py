"""Errors of an object store as one line: what, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree.ElementTree import ParseError

from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import HTTPError, SSLError

from kubeyolo.errors import InputError, KubeyoloError, WorkError
from kubeyolo.storage.base import NotFound
from kubeyolo.storage.minio_settings import MinioSettings

_MISSING = {"NoSuchKey", "NoSuchObject", "NoSuchVersion"}
_WRONG_KEY = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidTokenId", "ExpiredToken"}
_NAME_TAKEN = {"XMinioParentIsObject", "XMinioObjectExistsAsDirectory", "XMinioInvalidObjectName", "KeyTooLongError"}
_FULL = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"}


@contextmanager
def translate_errors(settings: MinioSettings, bucket: str, uri: str, known: bool = True) -> Iterator[None]:
    """Turn every error of the client about ``uri`` into one of our errors.

    If the store does not answer, the error is an ``InputError``; it is a ``WorkError`` if the store is ``known``, that
    is, has answered before.
    """
    try:
        yield
    except S3Error as error:
        raise _from_code(error, settings, bucket, uri) from error
    except (MinioException, HTTPError, OSError, ParseError) as error:
        raise _from_connection(error, settings, bucket, uri, known) from error


def missing_bucket(settings: MinioSettings, bucket: str, uri: str) -> InputError:
    """Return the error for a bucket that does not exist."""
    return InputError(
        f"{uri}: there is no bucket {bucket!r} at {settings.endpoint}; create it (mc mb ALIAS/{bucket}) or correct "
        "the URI"
    )


def _from_code(error: S3Error, settings: MinioSettings, bucket: str, uri: str) -> KubeyoloError:
    code, endpoint = error.code or "", settings.endpoint
    if code in _MISSING:
        return NotFound(f"{uri}: there is no such object at {endpoint}")
    if code == "NoSuchBucket":
        return missing_bucket(settings, bucket, uri)
    if code in _WRONG_KEY:
        return InputError(
            f"{uri}: the store at {endpoint} refuses the credentials for bucket {bucket!r} ({code}); "
            "check MINIO_ACCESS_KEY and MINIO_SECRET_KEY"
        )
    if code in ("AccessDenied", "AllAccessDisabled"):
        return InputError(
            f"{uri}: access key {settings.access_key!r} may not do this in bucket {bucket!r} at {endpoint} ({code}); "
            "check MINIO_ACCESS_KEY and its policy"
        )
    if code == "RequestTimeTooSkewed":
        return InputError(f"{uri}: the clocks of this machine and of {endpoint} differ too much; correct them")
    if code in ("AuthorizationHeaderMalformed", "PermanentRedirect", "Redirect"):
        return InputError(f"{uri}: bucket {bucket!r} at {endpoint} is in a different region; set MINIO_REGION ({code})")
    if code in _NAME_TAKEN:
        return InputError(
            f"{uri}: an object cannot have this name there ({code}); choose a different name: a part of "
            "this name may already be an object"
        )
    if code in _FULL:
        return WorkError(
            f"{uri}: the store at {endpoint} is full ({code}); free some space and run the same command again"
        )
    return WorkError(f"{uri}: the store at {endpoint} failed: {code}: {error.message}")


def _from_connection(error: Exception, settings: MinioSettings, bucket: str, uri: str, known: bool) -> KubeyoloError:
    where = f"{uri}: the store at {settings.endpoint} (bucket {bucket!r})"
    if isinstance(error, SSLError):
        if "WRONG_VERSION_NUMBER" in str(error):
            return InputError(f"{where} does not use TLS; set MINIO_SECURE=0")
        return InputError(f"{where} has no trusted TLS certificate: {error}; check MINIO_ENDPOINT or SSL_CERT_FILE")
    if isinstance(error, InvalidResponseError | ParseError):
        if "HTTPS server" in str(error):
            return InputError(f"{where} accepts only TLS; set MINIO_SECURE=1")
        return InputError(f"{where} does not answer like an object store; check MINIO_ENDPOINT")
    if isinstance(error, ServerError):
        return WorkError(f"{where} failed repeatedly with HTTP status {error.status_code}")
    if isinstance(error, HTTPError | ConnectionError | TimeoutError):
        return (WorkError if known else InputError)(
            f"{where} does not answer ({_reason(error)}); check MINIO_ENDPOINT and whether the store is running"
        )
    return WorkError(f"{uri}: {error}")


def _reason(error: Exception) -> str:
    text = str(error).rpartition(": ")[2].strip("()' ") or type(error).__name__
    return text if len(text) <= 120 else text[:120] + "…"
