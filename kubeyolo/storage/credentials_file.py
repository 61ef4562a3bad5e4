"""Credentials of a store: what they may consist of, and a file in AWS's form that is replaced before they expire."""

from __future__ import annotations

from configparser import ConfigParser
from configparser import Error as ConfigParserError

from kubeyolo.errors import InputError
from kubeyolo.regular_files import CONFIGURATION_SIZE, read_regular

CREDENTIALS_FILE = "AWS_SHARED_CREDENTIALS_FILE"
"""Environment variable with the path of the file."""

_SECTION = "default"
_REQUIRED = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

AWS_NAMES = (*_REQUIRED, "AWS_SESSION_TOKEN")
"""Names that AWS gives to access key, secret key and session token; a file has them in small letters."""


def read_credentials(uri: str, file: str) -> tuple[str, str, str]:
    """Return the access key, the secret key and the session token in a file; the token is empty if it is missing.

    Errors do not show the content of the file.

    Args:
        uri: The URI for which the credentials are needed; errors name it.
        file: Path of the file; the section ``default`` is read.

    Raises:
        InputError: The file cannot be read, or does not have an access key and a secret key.
    """
    where = f"{uri}: the credentials in {file} ({CREDENTIALS_FILE})"
    # Keys may contain a percent sign.
    parser = ConfigParser(interpolation=None)
    # The causes are left out, because they quote lines of the file.
    try:
        parser.read_string(read_regular(file, CONFIGURATION_SIZE).decode("utf-8-sig"), file)
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}; correct the path, or unset the variable") from None
    except (ValueError, ConfigParserError):
        raise InputError(f"{where} cannot be read: the file is not in AWS's form; {_remedy()}") from None
    if not parser.has_section(_SECTION):
        raise InputError(f"{where} cannot be read: the file has no section [{_SECTION}]; {_remedy()}")
    section = parser[_SECTION]
    values = {name: section.get(name.lower(), "").strip() for name in AWS_NAMES}
    for name in _REQUIRED:
        if not values[name]:
            raise InputError(f"{where} cannot be used: {name.lower()} is not set; {_remedy()}")
    for name, value in values.items():
        check_credential(f"{where} cannot be used: {name.lower()}", value)
    access_key, secret_key, token = values.values()
    return access_key, secret_key, token


def check_credential(what: str, value: str) -> None:
    """Refuse a key or a token that cannot be sent to a store; the error does not show it.

    Args:
        what: Where the value is from and its name, for the error.
        value: The value.

    Raises:
        InputError: The value has a line break, another control character, or a character outside ASCII.
    """
    if not (value.isascii() and value.isprintable()):
        raise InputError(
            f"{what} has a line break, another control character, or a character outside ASCII; copy the value again, "
            "in one line"
        )


def _remedy() -> str:
    names = " and ".join(name.lower() for name in _REQUIRED)
    return f"write {names} below [{_SECTION}], each as NAME = VALUE"
