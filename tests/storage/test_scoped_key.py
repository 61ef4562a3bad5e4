"""Keys that are limited to folders: what they allow on a real MinIO, how they are read, and stores without them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from kubeyolo.errors import InputError
from kubeyolo.storage.base import Store
from kubeyolo.storage.file_provider import FileProvider
from kubeyolo.storage.location import BucketLocation
from kubeyolo.storage.minio_settings import MinioSettings
from kubeyolo.storage.place import Place
from kubeyolo.storage.scoped_key import LONGEST_SECONDS, NoScopedKey, StoreUnreachable, key_policy, request_key
from tests.minio_server import MinioServer, free_port

PROGRAM = """
import sys
from kubeyolo.errors import KubeyoloError
from kubeyolo.storage.place import Place

for action, uri in (word.split("=", 1) for word in sys.argv[1:]):
    place = Place.of(uri)
    try:
        if action == "read":
            print(place.read().decode())
        elif action == "list":
            print(len(place.store.list()))
        elif action == "write":
            place.write(b"new")
            print("written")
        else:
            place.parent.store.delete(place.name)
            print("deleted")
    except KubeyoloError as error:
        print("refused" if "AccessDenied" in str(error) else f"failed: {error}")
"""


@pytest.fixture
def other_bucket(minio_server: MinioServer, minio_bucket: str) -> str:
    """A second bucket; both buckets have an object in each of some folders."""
    other = minio_server.make_bucket(f"{minio_bucket}-other")
    for bucket in (minio_bucket, other):
        for key in ("data/cells/part", "data/cells-of-others/part", "trainings/one/old", "trainings/two/old"):
            minio_server.client.put_object(bucket, key, io.BytesIO(key.encode()), len(key))
    return other


def settings_of(uri: str) -> MinioSettings:
    return MinioSettings.from_environment(uri)


def location(uri: str) -> BucketLocation:
    found = Place.of(uri).location
    assert isinstance(found, BucketLocation)
    return found


def run(file: Path, *actions: str) -> list[str]:
    """Run actions in a process that has the key in a file, like the pods of a job."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_KEY")}
    environment["AWS_SHARED_CREDENTIALS_FILE"] = str(file)
    command = [sys.executable, "-c", PROGRAM, *actions]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_trainer_reads_its_data_and_writes_its_output_and_reaches_nothing_else(
    minio_bucket: str, other_bucket: str, tmp_path: Path
) -> None:
    data, output = f"minio://{minio_bucket}/data/cells", f"minio://{minio_bucket}/trainings/one"
    key = request_key(settings_of(data), [location(data)], [location(output)])
    assert LONGEST_SECONDS - 120 < key.seconds <= LONGEST_SECONDS
    file = tmp_path / "credentials"
    file.write_text(key.document)
    allowed = {
        f"read={data}/part": "data/cells/part",
        f"list={data}": "1",
        f"read={output}/old": "trainings/one/old",
        f"write={output}/checkpoints/1": "written",
        f"list={output}": "2",
        f"delete={output}/old": "deleted",
    }
    assert run(file, *allowed) == list(allowed.values())
    bucket, other = f"minio://{minio_bucket}", f"minio://{other_bucket}"
    refused = (
        f"read={other}/data/cells/part",
        f"list={other}/data/cells",
        f"write={other}/trainings/one/new",
        f"read={bucket}/data/cells-of-others/part",
        f"read={bucket}/trainings/two/old",
        f"write={bucket}/trainings/two/old",
        f"delete={bucket}/trainings/two/old",
        f"write={data}/part",
        f"delete={data}/part",
        f"list={bucket}/trainings",
        f"list={bucket}/data/cells-of-others",
        f"list={bucket}",
    )
    assert run(file, *refused) == ["refused"] * len(refused)


def test_a_replaced_file_is_read_without_a_new_connection(
    minio_bucket: str, other_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = f"minio://{minio_bucket}/trainings/one", f"minio://{minio_bucket}/trainings/two"
    file = tmp_path / "credentials"
    settings = settings_of(one)
    file.write_text(request_key(settings, [], [location(one)]).document)
    for name in ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    place = Place.of(one)
    store: Store = place.store
    assert store.read_bytes("old") == b"trainings/one/old"
    with pytest.raises(InputError, match="AccessDenied"):
        place.at(two).store.read_bytes("old")
    part = tmp_path / "new"
    part.write_text(request_key(settings, [], [location(two)]).document)
    part.rename(file)
    assert place.at(two).store.read_bytes("old") == b"trainings/two/old"
    with pytest.raises(InputError, match="AccessDenied"):
        store.read_bytes("old")
    file.unlink()
    assert place.at(two).store.read_bytes("old") == b"trainings/two/old", "the last key is kept"


def test_credentials_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="credentials cannot be read"):
        FileProvider(str(tmp_path / "absent")).retrieve()
    file = tmp_path / "credentials"
    file.write_text("aws_access_key_id = a\n")
    environment = {"MINIO_ENDPOINT": "store:9000", "AWS_SHARED_CREDENTIALS_FILE": str(file)}
    with pytest.raises(InputError, match="minio://b: the credentials in .*credentials"):
        MinioSettings.from_environment("minio://b", environment)
    file.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = 10%\naws_session_token = t\n")
    found = MinioSettings.from_environment("minio://b", environment)
    assert (found.access_key, found.secret_key, found.session_token) == ("a", "10%", "t")
    assert found.credentials_file == str(file)
    keys = {"MINIO_ACCESS_KEY": "k", "MINIO_SECRET_KEY": "s", "MINIO_SESSION_TOKEN": "of-k"}
    found = MinioSettings.from_environment("minio://b", {**environment, **keys})
    assert (found.access_key, found.session_token, found.credentials_file) == ("k", "of-k", "")


def test_wrong_credentials_and_keys_that_are_limited_already_get_no_key(minio_bucket: str) -> None:
    place = location(f"minio://{minio_bucket}/trainings/one")
    settings = settings_of(place.uri)
    with pytest.raises(NoScopedKey, match="gives out no keys for folders"):
        request_key(replace(settings, secret_key="wrong"), [], [place])


@pytest.fixture
def endpoint() -> Iterator[str]:
    """A store without STS."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(501)
            self.end_headers()
            self.wfile.write(b"<Error><Code>NotImplemented</Code></Error>")

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_store_without_such_keys_is_told_from_one_that_does_not_answer(endpoint: str) -> None:
    place = BucketLocation("minio", "kubeyolo", "trainings/one")
    settings = MinioSettings(endpoint=endpoint, access_key="a", secret_key="b", secure=False)
    with pytest.raises(NoScopedKey, match="501"):
        request_key(settings, [], [place])
    with pytest.raises(StoreUnreachable, match="does not answer"):
        request_key(replace(settings, endpoint=f"127.0.0.1:{free_port()}"), [], [place])


@pytest.mark.parametrize("prefix", ["*", "trainings/o?e", "${aws:username}"])
def test_wildcards_do_not_widen_a_key(prefix: str) -> None:
    settings = MinioSettings(endpoint="store:9000", access_key="a", secret_key="b")
    with pytest.raises(InputError, match="cannot have"):
        request_key(settings, [], [BucketLocation("minio", "kubeyolo", prefix)])


def test_only_a_whole_bucket_may_be_listed_without_a_folder() -> None:
    whole, part = BucketLocation("minio", "one", ""), BucketLocation("minio", "two", "a")
    statements = key_policy([whole], [part])["Statement"]
    listings = {each["Resource"][0]: each.get("Condition") for each in statements if "s3:ListBucket" in each["Action"]}
    assert listings["arn:aws:s3:::one"] is None
    assert listings["arn:aws:s3:::two"] == {"StringLike": {"s3:prefix": ["a", "a/*"]}}
