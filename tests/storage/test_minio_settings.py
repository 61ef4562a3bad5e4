"""The environment variables of an object store."""

from __future__ import annotations

from pathlib import Path

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


AWS = {"AWS_ACCESS_KEY_ID": "them", "AWS_SECRET_ACCESS_KEY": "hidden"}
STORED = "[default]\naws_access_key_id = of-file\naws_secret_access_key = secret-of-file\n"


def read_with_file(path: Path, text: str, **variables: str) -> MinioSettings:
    file = path / "credentials"
    file.write_text(text)
    environment = {"MINIO_ENDPOINT": "store:9000", "AWS_SHARED_CREDENTIALS_FILE": str(file), **variables}
    return MinioSettings.from_environment("minio://bucket", environment)


def test_credentials_are_stripped() -> None:
    settings = read(MINIO_ACCESS_KEY=" me\n", MINIO_SECRET_KEY="secret\r\n", MINIO_SESSION_TOKEN="token\n")
    assert (settings.access_key, settings.secret_key, settings.session_token) == ("me", "secret", "token")
    settings = MinioSettings.from_environment("s3://b", {**AWS, "MINIO_ENDPOINT": "s:1", "AWS_SESSION_TOKEN": "t\n"})
    assert settings.session_token == "t"


@pytest.mark.parametrize(
    "value", ["HIDDEN\nHIDDEN", "HIDDEN\x00HIDDEN", "HIDDEN\u2028HIDDEN", "HIDDEN\u00fc", "HID\tDEN"]
)
@pytest.mark.parametrize("name", ["MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "MINIO_SESSION_TOKEN"])
def test_a_credential_that_cannot_be_sent_is_refused_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(InputError, match=f"the environment variable {name} has a line break.*copy the value") as caught:
        read(**{name: value})
    assert "HID" not in str(caught.value)


@pytest.mark.parametrize("name", ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"])
def test_a_value_of_several_lines_in_the_file_is_refused_and_not_shown(tmp_path: Path, name: str) -> None:
    lines = {**dict.fromkeys(("aws_access_key_id", "aws_secret_access_key"), "a"), name: "HIDDEN\n  HIDDEN"}
    text = "[default]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())
    with pytest.raises(InputError, match=rf"minio://bucket: .*credentials .*{name} has a line break") as caught:
        read_with_file(tmp_path, text)
    assert "HIDDEN" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"has no section \[default\]; write aws_access_key_id and aws_secret_access_key below \[default\]"),
        ("[prod]\naws_access_key_id = HIDDEN\n", r"has no section \[default\]; write"),
        ("aws_secret_access_key = HIDDEN\n", "the file is not in AWS's form; write"),
        ("[default]\nHIDDEN\n", "the file is not in AWS's form; write"),
        ("[default]\n", "aws_access_key_id is not set; write"),
        ("[default]\naws_access_key_id = HIDDEN\n", "aws_secret_access_key is not set; write"),
    ],
)
def test_a_file_without_credentials_is_named_with_a_remedy_and_not_shown(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(
        InputError, match=rf"{tmp_path}/credentials \(AWS_SHARED_CREDENTIALS_FILE\) .*{words}"
    ) as caught:
        read_with_file(tmp_path, text)
    assert "HIDDEN" not in str(caught.value) and caught.value.__cause__ is None


def test_the_file_is_used_if_no_variable_has_credentials(tmp_path: Path) -> None:
    found = read_with_file(tmp_path, STORED, MINIO_SECRET_KEY=" ")
    assert (found.access_key, found.secret_key, found.session_token) == ("of-file", "secret-of-file", "")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"MINIO_SECRET_KEY": "s"}, "MINIO_ACCESS_KEY is not set; .*or unset MINIO_SECRET_KEY to use"),
        ({"MINIO_SESSION_TOKEN": "t"}, "MINIO_ACCESS_KEY is not set; .*or unset MINIO_SESSION_TOKEN to use"),
        ({"MINIO_ACCESS_KEY": "k"}, "MINIO_SECRET_KEY is not set; .*or unset MINIO_ACCESS_KEY to use"),
        ({"AWS_SESSION_TOKEN": "t"}, "AWS_ACCESS_KEY_ID is not set; .*or unset AWS_SESSION_TOKEN to use"),
        ({"AWS_SECRET_ACCESS_KEY": "s"}, "AWS_ACCESS_KEY_ID is not set; .*or unset AWS_SECRET_ACCESS_KEY to use"),
        ({**AWS, "MINIO_SESSION_TOKEN": "t"}, "MINIO_ACCESS_KEY is not set; .*or unset MINIO_SESSION_TOKEN to use"),
        ({**AWS, "MINIO_ACCESS_KEY": "k"}, "MINIO_SECRET_KEY is not set; .*or unset MINIO_ACCESS_KEY to use"),
    ],
)
def test_credentials_of_two_sources_are_never_combined(tmp_path: Path, variables: dict[str, str], words: str) -> None:
    with pytest.raises(
        InputError, match=f"minio://bucket: the environment variable {words} credentials from elsewhere"
    ):
        read_with_file(tmp_path, STORED, **variables)
