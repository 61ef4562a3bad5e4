"""Work that is killed before each of its changes: readers find old or new content, and the next run cleans up."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kubeyolo.bundle import MANIFEST_NAME, WEIGHTS, BundleManifest, open_bundle
from kubeyolo.pointers import ModelPointer, read_model_version, write_model_pointer
from kubeyolo.publishing import publish_bundle
from kubeyolo.storage.copy import copy_tree
from kubeyolo.storage.minio_store import MinioStore
from kubeyolo.storage.place import Place
from tests.kills import EVERY, kill_points, run_in_child

OLD, NEW = b"old weights", b"new weights"


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Give temporary and cached files a folder of their own, after the server was found in the cache folder."""
    if "store_uri" in request.fixturenames:
        request.getfixturevalue("store_uri")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))


def publish(uri: str, files: Path, content: bytes) -> None:
    files.mkdir(exist_ok=True)
    (files / WEIGHTS).write_bytes(content)
    manifest = BundleManifest(
        model="yolov5n-r7",
        classes=("cat",),
        image_size=(64, 64),
        strides=(8, 16, 32),
        anchors=(((1.0, 2.0),),) * 3,
    )
    publish_bundle(Place.of(uri), manifest, {WEIGHTS: files / WEIGHTS})


def weights_at(uri: str) -> bytes | None:
    """Return the weights of a bundle; None if there is no bundle. An incomplete bundle raises."""
    if not Place.of(uri).store.exists(MANIFEST_NAME):
        return None
    return open_bundle(Place.of(uri)).path(WEIGHTS).read_bytes()


def check_nothing_left(uri: str, tmp_path: Path) -> None:
    store = Place.of(uri).store
    here = store.local_path()
    if here is not None:
        assert list(here.rglob(".*")) == []
    assert [stored.key for stored in store.list() if stored.key.endswith(".owner")] == []
    assert list((tmp_path / "tmp").iterdir()) == []
    folders = {stored.key.split("/")[0] for stored in store.list()} - {MANIFEST_NAME}
    assert len(folders) == 1


def killed_and_repeated(
    uri: str, tmp_path: Path, prepare: Callable[[], object], work: Callable[[], object], allowed: set[bytes | None]
) -> None:
    """Kill work that publishes NEW before each of its changes, and run it again."""
    prepare()
    # Requests to a server take longer than changes of files.
    every = EVERY if Place.of(uri).store.local_path() else 3 * EVERY
    for number in kill_points(work, every):
        assert weights_at(uri) in allowed | {NEW}, number
        assert run_in_child(work) == 0
        assert weights_at(uri) == NEW
        check_nothing_left(uri, tmp_path)
        Place.of(uri).store.delete_tree("")
        prepare()
    assert weights_at(uri) == NEW
    check_nothing_left(uri, tmp_path)


def test_a_killed_publisher_leaves_no_bundle_or_the_whole_one(store_uri: str, tmp_path: Path) -> None:
    killed_and_repeated(store_uri, tmp_path, list, lambda: publish(store_uri, tmp_path / "files", NEW), {None})


def test_a_killed_publisher_leaves_the_bundle_that_it_replaces(store_uri: str, tmp_path: Path) -> None:
    def prepare() -> None:
        publish(store_uri, tmp_path / "older", OLD)

    killed_and_repeated(store_uri, tmp_path, prepare, lambda: publish(store_uri, tmp_path / "files", NEW), {OLD})


def test_a_killed_copy_leaves_no_bundle_or_the_whole_one(store_uri: str, tmp_path: Path) -> None:
    source = str(tmp_path / "source")
    publish(source, tmp_path / "files", NEW)
    killed_and_repeated(store_uri, tmp_path, list, lambda: copy_tree(source, store_uri, (MANIFEST_NAME,)), {None})


def test_a_killed_copy_leaves_the_bundle_that_it_replaces(tmp_path: Path) -> None:
    source, target = str(tmp_path / "source"), str(tmp_path / "target")
    publish(source, tmp_path / "files", NEW)
    publish(target, tmp_path / "older", OLD)

    def copy() -> None:
        copy_tree(source, target, (MANIFEST_NAME,))

    for number in kill_points(copy):
        assert weights_at(target) in (OLD, NEW), number
        assert run_in_child(copy) == 0 and weights_at(target) == NEW
        assert list((tmp_path / "target").rglob(".*")) == list((tmp_path / "tmp").iterdir()) == []
        shutil.rmtree(tmp_path / "target")
        publish(target, tmp_path / "older", OLD)


def test_a_killed_move_leaves_the_pointer_where_it_was_or_moves_it(tmp_path: Path) -> None:
    latest = Place.of(tmp_path / "latest.json")
    old, new = (ModelPointer(bundle=(tmp_path / name).as_uri()) for name in ("old", "new"))
    write_model_pointer(latest, old)

    def move() -> None:
        write_model_pointer(latest, new, read_model_version(latest).etag)

    for _ in kill_points(move):
        assert read_model_version(latest).pointer in (old, new)
        assert run_in_child(move) == 0 and read_model_version(latest).pointer == new
        assert {path.name for path in tmp_path.iterdir()} == {"tmp", "latest.json"}
        write_model_pointer(latest, old, read_model_version(latest).etag)


def test_the_parts_of_a_killed_upload_are_removed_by_the_next_publisher(
    minio_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, files = f"minio://{minio_bucket}/bundle", tmp_path / "files"
    at = MinioStore.at

    def in_small_parts(store: MinioStore, prefix: str) -> MinioStore:
        store._part_size = 5 << 20
        return at(store, prefix)

    monkeypatch.setattr(MinioStore, "at", in_small_parts)
    content, uploads = bytes(11 << 20), 0
    for number in (14, 20, 26):
        assert run_in_child(lambda: publish(uri, files, content), number) == -signal.SIGKILL
        client = Place.of(uri).store._client  # type: ignore[attr-defined]
        folders = {stored.key.removesuffix(".owner") for stored in Place.of(uri).store.list()}
        names = [f"bundle/{folder}/{WEIGHTS}" for folder in folders]
        uploads += sum(len(client._list_multipart_uploads(minio_bucket, prefix=name).uploads) for name in names)
        assert run_in_child(lambda: publish(uri, files, content)) == 0
        left = [client._list_multipart_uploads(minio_bucket, prefix=name).uploads for name in names]
        assert left == [[]] * len(names) and weights_at(uri) == content
        Place.of(uri).store.delete_tree("")
    assert uploads, "no kill was during an upload"
