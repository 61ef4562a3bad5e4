"""What only an object store can do wrong: parts, broken connections, credentials, a server that goes away."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from minio import Minio
from minio.error import S3Error

from kubeyolo.errors import InputError, WorkError
from kubeyolo.storage import minio_store, patient_pool
from kubeyolo.storage.integrity import sha256_bytes
from kubeyolo.storage.location import BucketLocation
from kubeyolo.storage.minio_settings import MinioSettings
from kubeyolo.storage.minio_store import MinioConnection, MinioStore
from kubeyolo.storage.place import Place
from tests.minio_server import MinioServer, free_port, start_minio
from tests.storage.flaky_proxy import flaky_proxy

PART = 5 << 20


def store_at(endpoint: str, server: MinioServer, bucket: str, seconds: float = 20.0, parallel: int = 3) -> MinioStore:
    settings = MinioSettings.from_environment("test", server.environment | {"MINIO_ENDPOINT": endpoint})
    location = BucketLocation("minio", bucket, "p")
    return MinioStore(MinioConnection(settings, seconds), location, part_size=PART, parallel_parts=parallel)


@pytest.fixture
def store(minio_server: MinioServer, minio_bucket: str) -> MinioStore:
    return store_at(minio_server.endpoint, minio_server, minio_bucket)


@pytest.fixture(scope="session")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large"
    path.write_bytes(os.urandom(4 * PART + 12_345))
    return path


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[MinioServer]:
    """A server that a test may stop."""
    server = start_minio(tmp_path)
    yield server
    server.stop()


def test_a_large_file_travels_in_parts_in_both_directions(
    store: MinioStore, minio_server: MinioServer, minio_bucket: str, large_file: Path, tmp_path: Path
) -> None:
    sha256 = store.put_file(large_file, "large")
    facts = minio_server.client.stat_object(minio_bucket, "p/large")
    assert facts.etag.endswith("-5"), "an etag of five parts ends in -5"
    assert facts.metadata["x-amz-meta-sha256"] == sha256
    moved: list[int] = []
    store.get_file("large", tmp_path / "copy", moved.append)
    assert (tmp_path / "copy").read_bytes() == large_file.read_bytes()
    assert sum(moved) == large_file.stat().st_size
    assert store.read_bytes("large") == large_file.read_bytes()


def test_a_large_file_in_a_tree_comes_back(store: MinioStore, large_file: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "large").symlink_to(large_file)
    (tmp_path / "in" / "small").write_bytes(b"small")
    store.put_tree(tmp_path / "in", "tree", last="large")
    store.get_tree("tree", tmp_path / "out")
    assert (tmp_path / "out" / "large").read_bytes() == large_file.read_bytes()
    assert (tmp_path / "out" / "small").read_bytes() == b"small"


def test_a_failed_upload_gives_up_its_parts_and_keeps_the_old_object(
    store: MinioStore, minio_server: MinioServer, minio_bucket: str, large_file: Path
) -> None:
    store.write_bytes("large", b"old")
    moved = 0

    def fail(count: int) -> None:
        nonlocal moved
        moved += count
        if moved > 2 * PART:
            raise RuntimeError("the source is gone")

    with pytest.raises(RuntimeError, match="the source is gone"):
        store.put_file(large_file, "large", fail)
    assert store.read_bytes("large") == b"old"
    assert minio_server.client._list_multipart_uploads(minio_bucket, prefix="p/large").uploads == []


def test_a_damaged_object_is_refused_with_both_digests(
    store: MinioStore, minio_server: MinioServer, minio_bucket: str, tmp_path: Path
) -> None:
    store.write_bytes("weights", b"good")
    metadata = {"sha256": minio_server.client.stat_object(minio_bucket, "p/weights").metadata["x-amz-meta-sha256"]}
    minio_server.client.put_object(minio_bucket, "p/weights", BytesIO(b"evil"), 4, metadata=metadata)
    (tmp_path / "copy").write_bytes(b"as it was")
    for work in (lambda: store.read_bytes("weights"), lambda: store.get_file("weights", tmp_path / "copy")):
        with pytest.raises(
            InputError, match=rf"p/weights.*expected sha256 {metadata['sha256']}, found {sha256_bytes(b'evil')}"
        ):
            work()
    assert (tmp_path / "copy").read_bytes() == b"as it was"
    assert os.listdir(tmp_path) == ["copy"]


def test_objects_of_other_writers_need_no_checksum(
    store: MinioStore, minio_server: MinioServer, minio_bucket: str, tmp_path: Path
) -> None:
    minio_server.client.put_object(minio_bucket, "p/theirs", BytesIO(b"data"), 4)
    store.get_file("theirs", tmp_path / "copy")
    assert store.read_bytes("theirs") == (tmp_path / "copy").read_bytes() == b"data"


def test_an_object_that_is_replaced_while_it_is_read_comes_back_as_one_of_both(
    minio_server: MinioServer, minio_bucket: str, large_file: Path, tmp_path: Path
) -> None:
    store = store_at(minio_server.endpoint, minio_server, minio_bucket, parallel=1)
    store.put_file(large_file, "k")
    new = os.urandom(2 * PART)
    replaced = threading.Event()

    def replace(_: int) -> None:
        if not replaced.is_set():
            replaced.set()
            store.write_bytes("k", new)

    store.get_file("k", tmp_path / "copy", replace)
    assert (tmp_path / "copy").read_bytes() == new


def test_dropped_connections_are_made_again(minio_server: MinioServer, minio_bucket: str, tmp_path: Path) -> None:
    with flaky_proxy(minio_server.port, drop=4) as proxy:
        store = store_at(proxy.endpoint, minio_server, minio_bucket)
        store.write_bytes("k", b"data")
        assert store.read_bytes("k") == b"data"
        assert proxy.dropped == 4


def test_a_download_goes_on_where_its_connection_was_cut(
    store: MinioStore, minio_server: MinioServer, minio_bucket: str, large_file: Path, tmp_path: Path
) -> None:
    store.put_file(large_file, "large")
    with flaky_proxy(minio_server.port, cut_after=2_000_000, cuts=6) as proxy:
        moved: list[int] = []
        flaky = store_at(proxy.endpoint, minio_server, minio_bucket)
        flaky.get_file("large", tmp_path / "copy", moved.append)
        assert proxy.cut == 6
    assert (tmp_path / "copy").read_bytes() == large_file.read_bytes()
    assert sum(moved) == large_file.stat().st_size, "no byte is fetched twice"


def test_a_part_whose_answer_is_lost_is_sent_again(
    minio_server: MinioServer, minio_bucket: str, large_file: Path
) -> None:
    with flaky_proxy(minio_server.port, lose_answer_to=b"partNumber=2") as proxy:
        store_at(proxy.endpoint, minio_server, minio_bucket).put_file(large_file, "large")
        assert proxy.lost == 2
    assert store_at(minio_server.endpoint, minio_server, minio_bucket).read_bytes("large") == large_file.read_bytes()


def test_an_upload_whose_last_answer_is_lost_is_known_to_be_complete(
    minio_server: MinioServer, minio_bucket: str, large_file: Path
) -> None:
    with flaky_proxy(
        minio_server.port, lose_answer_to=b"POST /" + minio_bucket.encode() + b"/p/large?uploadId="
    ) as proxy:
        store_at(proxy.endpoint, minio_server, minio_bucket).put_file(large_file, "large")
        assert proxy.lost == 2
    assert store_at(minio_server.endpoint, minio_server, minio_bucket).read_bytes("large") == large_file.read_bytes()


def test_a_conditional_write_whose_answer_is_lost_is_known_as_ones_own(
    minio_server: MinioServer, minio_bucket: str
) -> None:
    with flaky_proxy(minio_server.port, lose_answer_to=b"If-None-Match: *") as proxy:
        store = store_at(proxy.endpoint, minio_server, minio_bucket)
        assert store.create_bytes("k", b"one")
        assert proxy.lost == 2
    with flaky_proxy(minio_server.port, lose_answer_to=b"If-Match: ") as proxy:
        store = store_at(proxy.endpoint, minio_server, minio_bucket)
        etag = store.read_version("k")[1]
        assert store.replace_bytes("k", b"two", etag)
        assert proxy.lost == 2
        assert not store.create_bytes("k", b"two")
        assert not store.replace_bytes("k", b"two", etag)


def test_a_conditional_write_has_the_checksum_of_all_others(store: MinioStore, minio_bucket: str) -> None:
    store.create_bytes("k", b"content")
    facts = store._client.stat_object(minio_bucket, store._object("k"))
    assert facts.metadata["x-amz-meta-sha256"] == sha256_bytes(b"content")


@pytest.mark.parametrize(("conflicts", "done"), [(2, True), (1000, False)])
def test_a_simultaneous_write_that_the_server_reports_is_tried_again(
    minio_server: MinioServer, minio_bucket: str, monkeypatch: pytest.MonkeyPatch, conflicts: int, done: bool
) -> None:
    store = store_at(minio_server.endpoint, minio_server, minio_bucket, seconds=2.0)
    execute, calls = Minio._execute, []

    def conflicting(self: Minio, method: str, *given: object, **named: object) -> object:
        if method == "PUT":
            calls.append(method)
            if len(calls) <= conflicts:
                response = SimpleNamespace(status=409)
                raise S3Error(response, "ConditionalRequestConflict", "", "", "", "")
        return execute(self, method, *given, **named)

    monkeypatch.setattr(Minio, "_execute", conflicting)
    assert store.create_bytes("k", b"content") is done
    assert store.exists("k") is done


def test_a_server_that_stops_for_good_is_one_clear_error_and_one_that_returns_is_waited_for(
    own_server: MinioServer, large_file: Path, tmp_path: Path
) -> None:
    own_server.make_bucket("bucket")
    hasty = store_at(own_server.endpoint, own_server, "bucket", seconds=4.0)
    patient = store_at(own_server.endpoint, own_server, "bucket", seconds=60.0)
    patient.put_file(large_file, "large")
    patient.write_bytes("small", b"small")

    def stop(_: int) -> None:
        own_server.stop()

    with pytest.raises(WorkError, match=rf"{own_server.endpoint} \(bucket 'bucket'\) does not answer.*MINIO_ENDPOINT"):
        hasty.get_file("large", tmp_path / "copy", stop)
    assert own_server.process is None
    assert not list(tmp_path.glob("*copy*")) and not list(tmp_path.glob(".*"))
    with pytest.raises(WorkError, match="does not answer"):
        store_at(own_server.endpoint, own_server, "bucket", seconds=1.0).put_file(large_file, "again")

    again = threading.Timer(1.0, own_server.start)
    again.start()
    assert patient.read_bytes("small") == b"small"
    again.join()
    assert not patient.exists("again")


@pytest.mark.timeout(60)
def test_a_server_that_does_not_answer_is_not_waited_for(minio_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("MINIO_ENDPOINT", endpoint)
        assert minio_store.CONTACT_SECONDS <= 10
        monkeypatch.setattr(minio_store, "CONTACT_SECONDS", 2.0)
        with pytest.raises(
            InputError, match=rf"minio://{minio_bucket}/x: the store at {endpoint}.*check MINIO_ENDPOINT"
        ):
            Place.of(f"minio://{minio_bucket}/x").contact()


def test_a_store_that_is_known_to_be_right_is_waited_for_from_the_start(
    own_server: MinioServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own_server.make_bucket("bucket")
    for name, value in own_server.environment.items():
        monkeypatch.setenv(name, value)
    own_server.stop()
    monkeypatch.setattr(minio_store, "CONTACT_SECONDS", 0.5)
    monkeypatch.setattr(patient_pool, "_WARN_SECONDS", 0.5)
    with pytest.raises(InputError, match="does not answer"):
        Place.of("minio://bucket/x").contact()
    monkeypatch.setenv("MINIO_PATIENCE", "2")
    with pytest.raises(WorkError, match="does not answer.*whether the store is running") as caught:
        Place.of("minio://bucket/x").contact()
    assert caught.value.exit_code == 1
    words = f"the store at {own_server.endpoint} does not answer; trying again for "
    assert any(message.startswith(words) for message in caplog.messages)

    monkeypatch.setenv("MINIO_PATIENCE", "60")
    again = threading.Timer(2.0, own_server.start)
    again.start()
    assert not Place.of("minio://bucket/x").store.exists("y")
    again.join()


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("MINIO_ENDPOINT", "127.0.0.1:{free}", r"127\.0\.0\.1:{free} \(bucket '{bucket}'\) does not answer .*refused"),
        pytest.param(
            "MINIO_ENDPOINT",
            "nowhere.invalid:9000",
            r"nowhere\.invalid:9000 .* does not answer .*check MINIO_ENDPOINT",
            marks=pytest.mark.strays("looks up a name that does not exist"),
        ),
        ("MINIO_ACCESS_KEY", "somebody", r"refuses the credentials for bucket '{bucket}' \(InvalidAccessKeyId\)"),
        (
            "MINIO_SECRET_KEY",
            "not-the-secret",
            r"\(SignatureDoesNotMatch\); check MINIO_ACCESS_KEY and MINIO_SECRET_KEY",
        ),
        ("MINIO_SECURE", "1", "does not use TLS; set MINIO_SECURE=0"),
    ],
)
def test_a_wrong_setting_is_one_line_with_the_variable_to_look_at(
    minio_bucket: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    port = free_port()
    if variable == "MINIO_ENDPOINT":
        monkeypatch.setattr(minio_store, "CONTACT_SECONDS", 1.0)
    monkeypatch.setenv("MINIO_SECURE", "0")
    monkeypatch.setenv(variable, value.format(free=port))
    with pytest.raises(InputError, match=says.format(free=port, bucket=minio_bucket)) as caught:
        Place.of(f"s3://{minio_bucket}/x").contact()
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert os.environ["MINIO_SECRET_KEY"] not in str(caught.value)


def test_a_missing_bucket_is_told_and_not_made(minio_bucket: str, minio_server: MinioServer) -> None:
    with pytest.raises(InputError, match=f"there is no bucket 'absent-{minio_bucket}' at .*create it"):
        Place.of(f"minio://absent-{minio_bucket}/x").read()
    assert not minio_server.client.bucket_exists(f"absent-{minio_bucket}")


def test_something_else_behind_the_endpoint_is_told(
    minio_bucket: str, minio_server: MinioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello"

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        monkeypatch.setenv("MINIO_ENDPOINT", f"127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(
            InputError, match=r"127\.0\.0\.1:\d+ \(bucket .*\) does not answer like an object store; check MINIO_E"
        ):
            Place.of(f"minio://{minio_bucket}").contact()
