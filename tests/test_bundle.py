"""Bundles: published whole, checked when opened, derived with their parent's files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from kubeyolo import bundle as bundle_module
from kubeyolo.bundle import (
    MANIFEST_NAME,
    ONNX,
    WEIGHTS,
    BundleManifest,
    DatasetReference,
    open_bundle,
    package_versions,
    publish_bundle,
)
from kubeyolo.errors import InputError
from kubeyolo.storage.base import Store
from kubeyolo.storage.integrity import sha256_file
from kubeyolo.storage.uri import open_store

MANIFEST = BundleManifest(
    model="yolov5n-r7",
    classes=("circle", "square"),
    category_ids=(1, 7),
    image_size=(320, 320),
    strides=(8, 16, 32),
    anchors=(((10, 13), (16, 30)),),
    dataset=DatasetReference(name="shapes", digest="d" * 64, uri="file:///data"),
    metrics={"AP": 0.5},
    packages={"torch": "0.0"},
)


@pytest.fixture(params=["file", "minio"])
def store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return (tmp_path / "store").as_uri()
    return f"minio://{request.getfixturevalue('minio_bucket')}/models"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "w").write_bytes(os.urandom(10_000))
    (tmp_path / "o").write_bytes(os.urandom(5_000))
    return {WEIGHTS: tmp_path / "w", ONNX: tmp_path / "o"}


def test_a_published_bundle_is_read_back(store_uri: str, files: dict[str, Path], cache: Path) -> None:
    uri = publish_bundle(f"{store_uri}/m/1", MANIFEST, files)
    assert uri == f"{store_uri}/m/1"
    bundle = open_bundle(uri, cache)
    assert bundle.uri == uri
    assert {name: bundle.path(name).read_bytes() for name in files} == {n: p.read_bytes() for n, p in files.items()}
    assert bundle.manifest.files[WEIGHTS].size == 10_000
    assert bundle.manifest.files[WEIGHTS].sha256 == sha256_file(files[WEIGHTS])
    assert bundle.manifest.packages["numpy"] == metadata.version("numpy")
    assert bundle.manifest.packages["torch"] == "0.0"
    filled_in = {"files", "packages"}
    assert bundle.manifest.model_dump(exclude=filled_in) == MANIFEST.model_dump(exclude=filled_in)


def test_a_file_that_is_not_there_is_named_with_the_nearest_one(
    store_uri: str, files: dict[str, Path], cache: Path
) -> None:
    bundle = open_bundle(publish_bundle(store_uri, MANIFEST, files), cache)
    with pytest.raises(InputError, match=r"has no file 'model\.onx'; did you mean 'model\.onnx'"):
        bundle.path("model.onx")


def test_publishing_the_same_again_changes_nothing(store_uri: str, files: dict[str, Path], cache: Path) -> None:
    publish_bundle(store_uri, MANIFEST, files)
    before = open_store(store_uri).list()
    publish_bundle(store_uri, MANIFEST, dict(reversed(files.items())))
    after = open_store(store_uri).list()
    assert [(one.key, one.size) for one in before] == [(one.key, one.size) for one in after]
    assert open_bundle(store_uri, cache).manifest.model == "yolov5n-r7"


def test_publishing_again_heals_a_damaged_file(store_uri: str, files: dict[str, Path], cache: Path) -> None:
    publish_bundle(store_uri, MANIFEST, files)
    open_store(store_uri).write_bytes(WEIGHTS, bytes(10_000))
    with pytest.raises(InputError, match="publish the bundle again|write it again"):
        open_bundle(store_uri, cache)
    publish_bundle(store_uri, MANIFEST, files)
    assert open_bundle(store_uri, cache).path(WEIGHTS).read_bytes() == files[WEIGHTS].read_bytes()


def test_a_reader_never_sees_a_manifest_whose_files_are_not_there(
    store_uri: str, files: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_bundle(store_uri, MANIFEST, files)
    store = open_store(store_uri)
    put_file = type(store).put_file
    seen: list[bool] = []

    def watched(self: Store, path: Path, key: str, on_bytes: object = None) -> str:
        seen.append(store.exists(MANIFEST_NAME))
        return put_file(self, path, key)

    monkeypatch.setattr(type(store), "put_file", watched)
    files[WEIGHTS].write_bytes(b"other weights")
    publish_bundle(store_uri, MANIFEST, files)
    assert seen == [False, False]
    assert open_bundle(store_uri, cache).path(WEIGHTS).read_bytes() == b"other weights"


@pytest.mark.parametrize("content", [b"x" * 10_000, b"short"])
def test_a_damaged_file_is_refused_and_named(
    store_uri: str, files: dict[str, Path], cache: Path, content: bytes
) -> None:
    uri = publish_bundle(store_uri, MANIFEST, files)
    open_store(uri).write_bytes(WEIGHTS, content)
    says = f"expected sha256 {sha256_file(files[WEIGHTS])}, found " if len(content) == 10_000 else "has 5 bytes"
    for _ in range(2):
        with pytest.raises(InputError, match=rf"{uri}/weights\.safetensors: .*{says}"):
            open_bundle(uri, cache)


def test_a_missing_file_is_refused_and_named(store_uri: str, files: dict[str, Path], cache: Path) -> None:
    uri = publish_bundle(store_uri, MANIFEST, files)
    open_store(uri).delete(ONNX)
    with pytest.raises(InputError, match=r"model\.onnx"):
        open_bundle(uri, cache)


def test_no_bundle_and_half_a_bundle_are_told(store_uri: str, files: dict[str, Path], cache: Path) -> None:
    with pytest.raises(InputError, match=rf"{store_uri}: there is no bundle\.json"):
        open_bundle(store_uri, cache)


def _changed(**changes: object) -> bytes:
    return json.dumps(json.loads(MANIFEST.model_dump_json()) | changes).encode()


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b"{not json", "this is not JSON"),
        (b"\xff\xfe\x00", "this is not JSON"),
        (b"[]", "schema version None of bundles is not known here"),
        (_changed(schema_version=7), r"schema version 7 of bundles is not known here \(known: 1\)"),
        (_changed(model=3), "model: Input should be a valid string"),
        (_changed(colour="red"), "colour: Extra inputs are not permitted"),
        (_changed(files={"../../etc/passwd": {"size": 1, "sha256": "0"}}), "is no key of a store"),
        (b'{"schema_version": 1}', "model: Field required"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path, document: bytes, says: str) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(document)
    with pytest.raises(InputError, match=f"{MANIFEST_NAME}: .*{says}") as caught:
        open_bundle(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_remote_bundle_is_fetched_once_and_a_damaged_copy_again(
    minio_bucket: str, files: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = publish_bundle(f"s3://{minio_bucket}/b", MANIFEST, files)
    first = open_bundle(uri, cache)
    store = type(open_store(uri))
    get_file = store.get_file
    fetched: list[str] = []

    def watched(self: Store, key: str, path: Path, on_bytes: object = None) -> None:
        fetched.append(key)
        get_file(self, key, path)

    monkeypatch.setattr(store, "get_file", watched)
    assert open_bundle(uri, cache).path(ONNX) == first.path(ONNX)
    assert fetched == []
    first.path(ONNX).write_bytes(bytes(5_000))
    assert open_bundle(uri, cache).path(ONNX).read_bytes() == files[ONNX].read_bytes()
    assert fetched == [ONNX]


def test_copies_are_kept_in_the_cache_folder_by_default(
    minio_bucket: str, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "mine"))
    bundle = open_bundle(publish_bundle(f"minio://{minio_bucket}/b", MANIFEST, files))
    assert bundle.folder.parent == tmp_path / "mine" / "bundles"


def test_a_local_bundle_is_used_where_it_is(tmp_path: Path, files: dict[str, Path]) -> None:
    bundle = open_bundle(publish_bundle(str(tmp_path / "b"), MANIFEST, files))
    assert bundle.path(ONNX) == tmp_path / "b" / ONNX


def test_a_derived_bundle_has_all_files_and_knows_its_parent(
    store_uri: str, files: dict[str, Path], cache: Path, tmp_path: Path
) -> None:
    parent = open_bundle(publish_bundle(f"{store_uri}/1", MANIFEST, files), cache)
    (tmp_path / "q").write_bytes(b"int8")
    uri = parent.derive(f"{store_uri}/2", {"model-int8.onnx": tmp_path / "q"}, metrics={"AP": 0.4})
    derived = open_bundle(uri, cache)
    assert sorted(derived.manifest.files) == ["model-int8.onnx", ONNX, WEIGHTS]
    assert derived.path(WEIGHTS).read_bytes() == files[WEIGHTS].read_bytes()
    assert derived.manifest.parent == f"{store_uri}/1"
    assert derived.manifest.metrics == {"AP": 0.4}
    assert derived.manifest.anchors == MANIFEST.anchors
    assert derived.manifest.packages["torch"] == "0.0"


def test_a_bundle_is_not_derived_into_itself_nor_with_unknown_fields(tmp_path: Path, files: dict[str, Path]) -> None:
    bundle = open_bundle(publish_bundle(str(tmp_path / "b"), MANIFEST, files))
    with pytest.raises(InputError, match="cannot be derived into its own place"):
        bundle.derive(str(tmp_path / "x" / ".." / "b"), {})
    with pytest.raises(InputError, match="metricks: Extra inputs are not permitted"):
        bundle.derive(str(tmp_path / "c"), {}, metricks={})
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("name", [MANIFEST_NAME, "../x", "/x", ""])
def test_a_file_needs_a_possible_name(tmp_path: Path, files: dict[str, Path], name: str) -> None:
    with pytest.raises(InputError):
        publish_bundle(str(tmp_path / "b"), MANIFEST, {**files, name: files[ONNX]})
    with pytest.raises(InputError, match="there is no such file to be put into the bundle"):
        publish_bundle(str(tmp_path / "b"), MANIFEST, {**files, "y": tmp_path / "absent"})
    assert not (tmp_path / "b").exists()


def test_a_publisher_that_is_killed_leaves_no_bundle(store_uri: str, files: dict[str, Path], cache: Path) -> None:
    publish_bundle(store_uri, MANIFEST, files)
    files[WEIGHTS].write_bytes(os.urandom(3_000_000))
    code = (
        "import json, os, sys, signal; from pathlib import Path; from kubeyolo import bundle\n"
        "class Killed(bundle.Progress):\n"
        "    def advance(self, count=1):\n"
        "        super().advance(count)\n"
        "        self.done > 1_000_000 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "bundle.Progress = Killed\n"
        "manifest = bundle.BundleManifest.model_validate_json(sys.argv[2])\n"
        "bundle.publish_bundle(sys.argv[1], manifest, {name: Path(p) for name, p in eval(sys.argv[3])})"
    )
    pairs = json.dumps([(name, str(path)) for name, path in files.items()])
    command = [sys.executable, "-c", code, store_uri, MANIFEST.model_dump_json(), pairs]
    assert subprocess.run(command, timeout=60, capture_output=True).returncode == -9
    with pytest.raises(InputError, match="whose publishing did not end"):
        open_bundle(store_uri, cache)
    publish_bundle(store_uri, MANIFEST, files)
    assert open_bundle(store_uri, cache).path(WEIGHTS).stat().st_size == 3_000_000


def test_versions_are_read_without_importing_the_packages() -> None:
    code = (
        "import sys; from kubeyolo.bundle import package_versions; assert package_versions()['numpy'];"
        "sys.exit(any(name in sys.modules for name in ('mindspore', 'onnxruntime', 'cv2', 'numpy', 'minio')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
    assert set(package_versions()) <= set(bundle_module._PACKAGES)
