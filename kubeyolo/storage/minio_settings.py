"""Address and credentials of an object store, from the environment."""

from __future__ import annotations

import ipaddress
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from kubeyolo.errors import InputError

_FLAGS = {**dict.fromkeys(("1", "true", "yes", "on"), True), **dict.fromkeys(("0", "false", "no", "off"), False)}

VARIABLES = (
    *("MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "MINIO_SECURE", "MINIO_REGION", "MINIO_PATIENCE"),
    *("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"),
)
"""The environment variables that are read here; a process on a different machine needs them to reach the same store."""


@dataclass(frozen=True, slots=True)
class MinioSettings:
    """Endpoint as ``host:port`` and credentials; if ``region`` is empty, the server is asked for it.

    ``patience`` is the number of seconds to wait while the store is unreachable; set it if the endpoint is known to be
    correct.
    """

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)
    secure: bool = True
    region: str = ""
    patience: float = 0.0

    @staticmethod
    def from_environment(uri: str, environment: Mapping[str, str] | None = None) -> MinioSettings:
        """Read the variables that :data:`VARIABLES` names.

        The usual ``AWS_*`` variables replace ``MINIO_*`` variables that are not set. Connections are encrypted unless
        the endpoint is this machine, starts with ``http://``, or ``MINIO_SECURE`` is 0.

        Args:
            uri: The URI for which the settings are needed; errors name it.
            environment: The variables; by default the environment of this process.

        Raises:
            InputError: A variable is missing or cannot be read.
        """
        variables = os.environ if environment is None else environment

        def read(name: str, fallback: str, remedy: str) -> str:
            value = (variables.get(name) or variables.get(fallback) or "").strip()
            if not value:
                raise InputError(f"{uri}: the environment variable {name} is not set; {remedy}")
            return value

        endpoint = read("MINIO_ENDPOINT", "AWS_ENDPOINT_URL", "set it to host:port of the store")
        access_key = read("MINIO_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "set it to the access key of the store")
        secret_key = read("MINIO_SECRET_KEY", "AWS_SECRET_ACCESS_KEY", "set it to the secret key of the store")
        scheme, separator, address = endpoint.rpartition("://")
        address = address.rstrip("/")
        if scheme not in ("", "http", "https") or not address or "/" in address:
            raise InputError(f"{uri}: MINIO_ENDPOINT is {endpoint!r}; it must be host:port, without a path")
        secure = scheme == "https" if separator else not is_loopback(address)
        # An AWS key may need its token, which does not belong to a MinIO key.
        token = "" if variables.get("MINIO_ACCESS_KEY") else variables.get("AWS_SESSION_TOKEN", "")
        return MinioSettings(
            endpoint=address,
            access_key=access_key,
            secret_key=secret_key,
            session_token=token,
            secure=_flag(uri, variables.get("MINIO_SECURE", ""), secure),
            region=variables.get("MINIO_REGION") or variables.get("AWS_REGION") or "",
            patience=_seconds(uri, variables.get("MINIO_PATIENCE", "")),
        )


def _flag(uri: str, value: str, default: bool) -> bool:
    word = value.strip().lower()
    if word and word not in _FLAGS:
        raise InputError(f"{uri}: MINIO_SECURE is {value!r}; it must be 0 or 1")
    return _FLAGS.get(word, default)


def _seconds(uri: str, value: str) -> float:
    try:
        seconds = float(value.strip() or 0.0)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds < math.inf:
        raise InputError(f"{uri}: MINIO_PATIENCE is {value!r}; it must be a number of seconds, such as 300")
    return seconds


def is_loopback(address: str) -> bool:
    """Tell whether ``host`` or ``host:port`` is this machine."""
    host = address.rpartition(":")[0] or address
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
