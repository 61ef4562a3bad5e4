"""The environment variables of an object store."""

from __future__ import annotations

import pytest

from kubeyolo.errors import InputError
from kubeyolo.storage.minio_settings import MinioSettings

FULL = {"MINIO_ENDPOINT": "store:9000", "MINIO_ACCESS_KEY": "me", "MINIO_SECRET_KEY": "secret"}


def read(**changes: str) -> MinioSettings:
    return MinioSettings.from_environment("minio://bucket", FULL | changes)


@pytest.mark.parametrize(
    ("endpoint", "flag", "secure"),
    [
        ("store:9000", "", True),
        ("store:9000", "0", False),
        ("store", "false", False),
        ("127.0.0.1:9000", "", False),
        ("localhost:9000", "", False),
        ("[::1]:9000", "", False),
        ("127.0.0.1:9000", "1", True),
        ("http://store:9000/", "", False),
        ("https://localhost:9000", "", True),
    ],
)
def test_connections_are_encrypted_except_on_this_machine(endpoint: str, flag: str, secure: bool) -> None:
    settings = read(MINIO_ENDPOINT=endpoint, MINIO_SECURE=flag)
    assert settings.secure is secure
    assert "/" not in settings.endpoint


@pytest.mark.parametrize("name", sorted(FULL))
def test_a_missing_variable_is_named(name: str) -> None:
    with pytest.raises(InputError, match=f"minio://bucket: the environment variable {name} is not set; set it"):
        read(**{name: " "})


@pytest.mark.parametrize("endpoint", ["ftp://store", "store:9000/path", "http://"])
def test_an_endpoint_with_a_path_is_refused(endpoint: str) -> None:
    with pytest.raises(InputError, match="must be host:port"):
        read(MINIO_ENDPOINT=endpoint)


def test_a_flag_that_is_neither_yes_nor_no_is_refused() -> None:
    with pytest.raises(InputError, match="MINIO_SECURE is 'maybe'; it must be 0 or 1"):
        read(MINIO_SECURE="maybe")


def test_the_usual_aws_variables_stand_in() -> None:
    aws = {
        "AWS_ENDPOINT_URL": "https://s3.example",
        "AWS_ACCESS_KEY_ID": "them",
        "AWS_SECRET_ACCESS_KEY": "hidden",
        "AWS_SESSION_TOKEN": "token",
        "AWS_REGION": "eu-west-1",
    }
    settings = MinioSettings.from_environment("s3://bucket", aws)
    assert (settings.endpoint, settings.access_key, settings.secret_key) == ("s3.example", "them", "hidden")
    assert (settings.session_token, settings.region) == ("token", "eu-west-1")
    both = MinioSettings.from_environment("s3://bucket", aws | FULL)
    assert (both.endpoint, both.access_key, both.session_token) == ("store:9000", "me", "")


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(read()).replace("secret_key", "")


def test_patience_is_a_number_of_seconds() -> None:
    assert (read().patience, read(MINIO_PATIENCE="300").patience) == (0.0, 300.0)
    for value in ("long", "-1", "inf"):
        with pytest.raises(InputError, match=f"MINIO_PATIENCE is '{value}'; it must be a number of seconds"):
            read(MINIO_PATIENCE=value)
