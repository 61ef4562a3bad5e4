"""Address and credentials of an object store, from the environment."""

from __future__ import annotations

import ipaddress
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from kubeyolo.errors import InputError
from kubeyolo.storage.credentials_file import AWS_NAMES, CREDENTIALS_FILE, check_credential, read_credentials

_FLAGS = {**dict.fromkeys(("1", "true", "yes", "on"), True), **dict.fromkeys(("0", "false", "no", "off"), False)}

VARIABLES = (
    *("MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "MINIO_SESSION_TOKEN"),
    *("MINIO_SECURE", "MINIO_REGION", "MINIO_PATIENCE"),
    *("AWS_ENDPOINT_URL", *AWS_NAMES, "AWS_REGION"),
    CREDENTIALS_FILE,
)
"""The environment variables that are read here; a process on a different machine needs them to reach the same store."""


_SOURCES = (("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "MINIO_SESSION_TOKEN"), AWS_NAMES)
"""Access key, secret key and session token of each source of credentials; the first source with a variable is used."""


@dataclass(frozen=True, slots=True)
class MinioSettings:
    """Endpoint as ``host:port`` and credentials; if ``region`` is empty, the server is asked for it.

    If there is a ``credentials_file``, its current content replaces the keys. ``patience`` is the number of seconds to
    wait while the store is unreachable; set it if the endpoint is known to be correct.
    """

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)
    secure: bool = True
    region: str = ""
    patience: float = 0.0
    credentials_file: str = ""

    @staticmethod
    def from_environment(uri: str, environment: Mapping[str, str] | None = None) -> MinioSettings:
        """Read the variables that :data:`VARIABLES` names.

        ``AWS_ENDPOINT_URL`` and ``AWS_REGION`` replace ``MINIO_*`` variables that are not set. The credentials are from
        one source: the ``MINIO_*`` variables if one of them is set, otherwise the ``AWS_*`` variables, otherwise the
        file. Connections are encrypted unless the endpoint is this machine, starts with ``http://``, or
        ``MINIO_SECURE`` is 0.

        Args:
            uri: The URI for which the settings are needed; errors name it.
            environment: The variables; by default the environment of this process.

        Raises:
            InputError: A variable is missing or cannot be read.
        """
        given = os.environ if environment is None else environment
        variables = {name: given.get(name, "").strip() for name in VARIABLES}
        endpoint = variables["MINIO_ENDPOINT"] or variables["AWS_ENDPOINT_URL"]
        if not endpoint:
            raise _unset(uri, "MINIO_ENDPOINT", "set it to host:port of the store")
        access_key, secret_key, token, file = _credentials(uri, variables)
        scheme, separator, address = endpoint.rpartition("://")
        address = address.rstrip("/")
        if scheme not in ("", "http", "https") or not address or "/" in address:
            raise InputError(f"{uri}: MINIO_ENDPOINT is {endpoint!r}; it must be host:port, without a path")
        secure = scheme == "https" if separator else not is_loopback(address)
        return MinioSettings(
            endpoint=address,
            access_key=access_key,
            secret_key=secret_key,
            session_token=token,
            secure=_flag(uri, variables["MINIO_SECURE"], secure),
            region=variables["MINIO_REGION"] or variables["AWS_REGION"],
            patience=_seconds(uri, variables["MINIO_PATIENCE"]),
            credentials_file=file,
        )


def _unset(uri: str, name: str, remedy: str) -> InputError:
    return InputError(f"{uri}: the environment variable {name} is not set; {remedy}")


def _credentials(uri: str, variables: Mapping[str, str]) -> tuple[str, str, str, str]:
    """Return the access key, the secret key, the session token and the file that they are from; empty if there is none.

    A key belongs to its secret and its token, so variables of two sources are never combined.
    """
    names = next((source for source in _SOURCES if any(variables[name] for name in source)), None)
    file = variables[CREDENTIALS_FILE]
    if names is None and file:
        return *read_credentials(uri, file), file
    names = names or _SOURCES[0]
    present = [name for name in names if variables[name]]
    for name, what in zip(names, ("access key", "secret key"), strict=False):
        if not variables[name]:
            others = f", or unset {' and '.join(present)} to use credentials from elsewhere" if present else ""
            raise _unset(uri, name, f"set it to the {what} of the store{others}")
    for name in names:
        check_credential(f"{uri}: the environment variable {name}", variables[name])
    access_key, secret_key, token = (variables[name] for name in names)
    return access_key, secret_key, token, ""


def _flag(uri: str, value: str, default: bool) -> bool:
    word = value.lower()
    if word and word not in _FLAGS:
        raise InputError(f"{uri}: MINIO_SECURE is {value!r}; it must be 0 or 1")
    return _FLAGS.get(word, default)


def _seconds(uri: str, value: str) -> float:
    try:
        seconds = float(value or 0.0)
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
