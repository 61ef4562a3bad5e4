"""Bundles: published whole, checked when opened, derived with their parent's files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path

import pytest

from kubeyolo import publishing
from kubeyolo.bundle import (
    MANIFEST_NAME,
    ONNX,
    WEIGHTS,
    BundleManifest,
    DatasetReference,
    open_bundle,
    read_bundle,
    read_manifest,
)
from kubeyolo.errors import InputError
from kubeyolo.publishing import VersionTaken, derive_bundle, package_versions, publish_bundle, repair_bundle
from kubeyolo.storage.base import Store
from kubeyolo.storage.integrity import sha256_bytes, sha256_file
from kubeyolo.storage.place import Place

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


def key_of(uri: str, name: str) -> str:
    """Return the key of a file of a bundle."""
    manifest = read_manifest(Place.of(uri).store.read_bytes(MANIFEST_NAME), uri)
    assert name in manifest.files and re.fullmatch("[0-9a-f]{16}", manifest.folder)
    return manifest.key(name)


def keys_of(uri: str) -> list[str]:
    return [stored.key for stored in Place.of(uri).store.list()]


def write_old_bundle(uri: str, files: dict[str, Path], **values: object) -> str:
    """Write a bundle as earlier versions have it.

    Its files lie next to the manifest, which has no field for their folder, nor for the geometry of the letterbox.
    """
    store = Place.of(uri).store
    facts = {name: {"size": path.stat().st_size, "sha256": sha256_file(path)} for name, path in sorted(files.items())}
    for name, path in files.items():
        store.put_file(path, name)
    document = json.loads(MANIFEST.model_dump_json()) | {"files": facts} | values
    del document["folder"], document["preprocessing"]["padding"], document["preprocessing"]["ratio"]
    store.write_bytes(MANIFEST_NAME, json.dumps(document, indent=2).encode() + b"\n")
    return store.uri


def test_a_published_bundle_is_read_back(store_uri: str, files: dict[str, Path], cache: Path) -> None:
    uri = publish_bundle(Place.of(f"{store_uri}/m/1"), MANIFEST, files).uri
    assert uri == f"{store_uri}/m/1"
    bundle = open_bundle(Place.of(uri), cache)
    assert bundle.uri == uri
    assert {name: bundle.path(name).read_bytes() for name in files} == {n: p.read_bytes() for n, p in files.items()}
    assert bundle.manifest.files[WEIGHTS].size == 10_000
    assert bundle.manifest.files[WEIGHTS].sha256 == sha256_file(files[WEIGHTS])
    assert bundle.manifest.packages["numpy"] == metadata.version("numpy")
    assert bundle.manifest.packages["torch"] == "0.0"
    filled_in = {"files", "packages", "folder"}
    assert bundle.manifest.model_dump(exclude=filled_in) == MANIFEST.model_dump(exclude=filled_in)


def test_a_file_that_is_not_there_is_named_with_the_nearest_one(
    store_uri: str, files: dict[str, Path], cache: Path
) -> None:
    bundle = publish_bundle(Place.of(store_uri), MANIFEST, files)
    with pytest.raises(InputError, match=r"has no file 'model\.onx'; did you mean 'model\.onnx'"):
        bundle.path("model.onx")


def test_publishing_the_same_again_changes_nothing(store_uri: str, files: dict[str, Path], cache: Path) -> None:
    publish_bundle(Place.of(store_uri), MANIFEST, files)
    before = Place.of(store_uri).store.list()
    publish_bundle(Place.of(store_uri), MANIFEST, dict(reversed(files.items())))
    after = Place.of(store_uri).store.list()
    assert [(one.key, one.size) for one in before] == [(one.key, one.size) for one in after]
    assert open_bundle(Place.of(store_uri), cache).manifest.model == "yolov5n-r7"


def test_publishing_again_heals_a_damaged_file(store_uri: str, files: dict[str, Path], cache: Path) -> None:
    publish_bundle(Place.of(store_uri), MANIFEST, files)
    Place.of(store_uri).store.write_bytes(key_of(store_uri, WEIGHTS), bytes(10_000))
    with pytest.raises(InputError, match="publish the bundle again|write it again"):
        open_bundle(Place.of(store_uri), cache)
    publish_bundle(Place.of(store_uri), MANIFEST, files)
    assert open_bundle(Place.of(store_uri), cache).path(WEIGHTS).read_bytes() == files[WEIGHTS].read_bytes()


def test_the_old_bundle_is_whole_until_the_new_one_is_in_its_place(
    store_uri: str, files: dict[str, Path], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_bundle(Place.of(store_uri), MANIFEST, files)
    store = Place.of(store_uri).store
    put_file = type(store).put_file
    seen: list[bytes] = []

    def watched(self: Store, path: Path, key: str, on_bytes: object = None) -> str:
        stored = put_file(self, path, key)
        seen.append(open_bundle(Place.of(store_uri), tmp_path / f"cache-{len(seen)}").path(WEIGHTS).read_bytes())
        return stored

    monkeypatch.setattr(type(store), "put_file", watched)
    old = files[WEIGHTS].read_bytes()
    files[WEIGHTS].write_bytes(b"other weights")
    publish_bundle(Place.of(store_uri), MANIFEST, files)
    assert seen == [old, old]
    assert open_bundle(Place.of(store_uri), cache).path(WEIGHTS).read_bytes() == b"other weights"


def test_the_files_of_a_bundle_that_is_replaced_are_removed(store_uri: str, files: dict[str, Path]) -> None:
    publish_bundle(Place.of(store_uri), MANIFEST, files)
    files[WEIGHTS].write_bytes(b"other weights")
    publish_bundle(Place.of(store_uri), MANIFEST, files)
    expected = sorted([MANIFEST_NAME, *(key_of(store_uri, name) for name in files)])
    assert keys_of(store_uri) == expected
    # Another manifest of the same files keeps them.
    publish_bundle(Place.of(store_uri), MANIFEST.model_copy(update={"metrics": {"AP": 0.6}}), files)
    assert keys_of(store_uri) == expected


def test_a_bundle_of_an_earlier_version_is_read_repaired_derived_and_replaced(
    store_uri: str, files: dict[str, Path], cache: Path
) -> None:
    uri = write_old_bundle(f"{store_uri}/old", files, packages=package_versions())
    opened = open_bundle(Place.of(uri), cache)
    assert opened.path(ONNX).read_bytes() == files[ONNX].read_bytes()
    document = Place.of(uri).store.read_bytes(MANIFEST_NAME)
    assert opened.digest == sha256_bytes(document)
    assert opened.manifest.preprocessing == MANIFEST.preprocessing
    # The same again: nothing is written but what is damaged, and that where it was.
    Place.of(uri).store.write_bytes(WEIGHTS, b"damaged")
    publish_bundle(Place.of(uri), MANIFEST.model_copy(update={"packages": package_versions()}), files)
    assert keys_of(uri) == sorted([MANIFEST_NAME, WEIGHTS, ONNX])
    assert Place.of(uri).store.read_bytes(WEIGHTS) == files[WEIGHTS].read_bytes()
    assert Place.of(uri).store.read_bytes(MANIFEST_NAME) == document
    derived = open_bundle(Place.of(derive_bundle(opened, Place.of(f"{store_uri}/new"), {}).uri), cache)
    assert derived.manifest.folder and derived.path(ONNX).read_bytes() == files[ONNX].read_bytes()
    publish_bundle(Place.of(uri), MANIFEST.model_copy(update={"model": "yolov5s-r7"}), files)
    assert keys_of(uri) == sorted([MANIFEST_NAME, key_of(uri, WEIGHTS), key_of(uri, ONNX)])
    assert open_bundle(Place.of(uri), cache).path(WEIGHTS).read_bytes() == files[WEIGHTS].read_bytes()


def test_a_bundle_that_is_replaced_while_it_is_repaired_is_published_anew(
    store_uri: str, files: dict[str, Path], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = publish_bundle(Place.of(store_uri), MANIFEST, files).uri
    Place.of(uri).store.write_bytes(key_of(uri, WEIGHTS), b"damaged")
    (tmp_path / "other").write_bytes(b"other")
    store = type(Place.of(uri).store)
    put_file = store.put_file

    def replaced_before(self: Store, path: Path, key: str, on_bytes: object = None) -> str:
        monkeypatch.setattr(store, "put_file", put_file)
        publish_bundle(Place.of(uri), MANIFEST, {WEIGHTS: tmp_path / "other"})
        return put_file(self, path, key)

    monkeypatch.setattr(store, "put_file", replaced_before)
    publish_bundle(Place.of(uri), MANIFEST, files)
    assert open_bundle(Place.of(uri), cache).path(WEIGHTS).read_bytes() == files[WEIGHTS].read_bytes()
    assert keys_of(uri) == sorted([MANIFEST_NAME, *(key_of(uri, name) for name in files)])


@pytest.mark.parametrize("folder", ["..", "/tmp", "src", "0123456789abcdef/..", "0123456789abcde"])
def test_a_manifest_names_no_other_folder_than_publishing_makes(tmp_path: Path, folder: str) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(_changed(folder=folder))
    with pytest.raises(InputError, match="folder: String should match pattern"):
        open_bundle(Place.of(tmp_path))


def test_a_bundle_is_opened_by_its_reference_or_refused(
    store_uri: str, files: dict[str, Path], cache: Path, tmp_path: Path
) -> None:
    uri = publish_bundle(Place.of(f"{store_uri}/1"), MANIFEST, files).uri
    reference = read_bundle(Place.of(uri)).reference
    digest = sha256_bytes(Place.of(uri).store.read_bytes(MANIFEST_NAME))
    assert reference == f"{uri}@sha256:{digest}" == read_bundle(Place.of(reference)).reference
    opened = open_bundle(Place.of(reference), cache)
    assert (opened.uri, opened.digest, opened.reference) == (uri, digest, reference)
    derived = open_bundle(derive_bundle(opened, Place.of(f"{store_uri}/2"), {}).place, cache)
    assert derived.manifest.parent == uri
    files[WEIGHTS].write_bytes(b"other weights")
    publish_bundle(Place.of(uri), MANIFEST, files)
    for read in (read_bundle, open_bundle):
        with pytest.raises(
            InputError, match=rf"{uri}: its content has changed: expected sha256 {digest[:12]}…, found "
        ):
            read(Place.of(reference))
    assert read_bundle(Place.of(uri)).reference != reference
    with pytest.raises(InputError, match=r"there is no bundle\.json"):
        read_bundle(Place.of(f"{store_uri}/absent"))


def test_another_bundle_is_not_replaced_where_it_must_not_be(
    store_uri: str, files: dict[str, Path], cache: Path
) -> None:
    uri = publish_bundle(Place.of(store_uri), MANIFEST, files, replace=False).uri
    before = [(stored.key, stored.size) for stored in Place.of(uri).store.list()]
    assert publish_bundle(Place.of(store_uri), MANIFEST, files, replace=False).uri == uri
    opened, content = open_bundle(Place.of(uri), cache), files[WEIGHTS].read_bytes()
    files[WEIGHTS].write_bytes(b"other weights")
    with pytest.raises(VersionTaken, match=rf"{uri}: a different bundle is published there"):
        publish_bundle(Place.of(uri), MANIFEST, files, replace=False)
    assert [(stored.key, stored.size) for stored in Place.of(uri).store.list()] == before
    assert open_bundle(Place.of(uri), cache).path(WEIGHTS).read_bytes() == content
    derive_bundle(opened, Place.of(f"{store_uri}-2"), {}, replace=False)
    with pytest.raises(VersionTaken):
        derive_bundle(opened, Place.of(f"{store_uri}-2"), files, replace=False)


def test_a_bundle_is_repaired_from_files_of_the_same_content(
    store_uri: str, files: dict[str, Path], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "mine"))
    uri = publish_bundle(Place.of(store_uri), MANIFEST, files).uri
    document = Place.of(uri).store.read_bytes(MANIFEST_NAME)
    Place.of(uri).store.write_bytes(key_of(uri, WEIGHTS), b"damaged")
    (tmp_path / "other").write_bytes(b"other")
    with pytest.raises(InputError, match="has 7 bytes"):
        repair_bundle(Place.of(uri), {WEIGHTS: tmp_path / "other"})
    repaired = repair_bundle(
        Place.of(uri), {WEIGHTS: files[WEIGHTS], ONNX: tmp_path / "other", "more": tmp_path / "other"}
    )
    assert repaired.path(WEIGHTS).read_bytes() == files[WEIGHTS].read_bytes()
    assert repaired.path(ONNX).read_bytes() == files[ONNX].read_bytes()
    assert Place.of(uri).store.read_bytes(MANIFEST_NAME) == document


PUBLISHER = """
import sys, time
from pathlib import Path
from kubeyolo import bundle, publishing
from kubeyolo.errors import KubeyoloError
from kubeyolo.storage.place import Place
model = bundle.BundleManifest.model_validate_json(sys.argv[1])
cache = Path(sys.argv[2])
print("ready", flush=True)
for line in sys.stdin:
    work, uri, *files = line.split()
    place = Place.of(uri)
    manifest = model.model_copy(update={"metrics": {"AP": len(files)}})
    given = {Path(path).name.split("-")[0]: Path(path) for path in files}
    try:
        if work == "read":
            end = time.monotonic() + 4
            count = 0
            while time.monotonic() < end:
                opened = bundle.open_bundle(place, cache / str(time.monotonic_ns()))
                if opened.folder.is_relative_to(cache):
                    contents = {opened.path(name).read_bytes()[:1] for name in opened.manifest.files}
                    assert len(contents) == 1, contents
                count += 1
            print(f"read {count}", flush=True)
        elif work == "alternate":
            for turn in range(12):
                one = given if turn % 2 else {name: path.with_name(path.name + "2") for name, path in given.items()}
                publishing.publish_bundle(place, manifest, one)
            print("done", flush=True)
        else:
            publishing.publish_bundle(place, manifest, given, replace=work == "replace")
            print("done", flush=True)
    except publishing.VersionTaken:
        print("taken", flush=True)
    except (KubeyoloError, AssertionError) as error:
        print(f"failed: {error!r}", flush=True)
"""


@pytest.fixture
def publishers(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Four processes that publish what they are told to, at the moment they are told."""
    with ExitStack() as stack:
        processes = []
        for number in range(4):
            command = [sys.executable, "-c", PUBLISHER, MANIFEST.model_dump_json(), str(tmp_path / f"cache-{number}")]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
            processes.append(stack.enter_context(subprocess.Popen(command, **pipes)))
            stack.callback(processes[-1].stdin.close)
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        yield processes


def at_once(processes: list[subprocess.Popen[str]], *works: str) -> list[str]:
    for process, work in zip(processes, works, strict=False):
        process.stdin.write(work + "\n")
    return [process.stdout.readline().strip() for process, _ in zip(processes, works, strict=False)]


def contents(tmp_path: Path, *letters: bytes) -> list[str]:
    """Write the files of a bundle for each letter, of which all of them are made, and return their names in a line."""
    lines = []
    for letter in letters:
        paths = [tmp_path / f"{name}-{letter.decode()}" for name in (WEIGHTS, ONNX)]
        for path in paths:
            path.write_bytes(letter * 200_000)
        lines.append(" ".join(map(str, paths)))
    return lines


def test_of_two_publishers_of_different_content_one_publishes_and_the_other_is_refused(
    store_uri: str, tmp_path: Path, publishers: list[subprocess.Popen[str]]
) -> None:
    one, other = contents(tmp_path, b"a", b"b")
    for number in range(12):
        uri = f"{store_uri}/{number}"
        outcomes = at_once(publishers, f"keep {uri} {one}", f"keep {uri} {other}")
        assert sorted(outcomes) == ["done", "taken"]
        bundle = open_bundle(Place.of(uri), tmp_path / "cache" / str(number))
        content = (b"a", b"b")[outcomes.index("done")] * 200_000
        assert {bundle.path(name).read_bytes() for name in bundle.manifest.files} == {content}
        assert keys_of(uri) == sorted([MANIFEST_NAME, key_of(uri, WEIGHTS), key_of(uri, ONNX)])


def test_publishers_of_equal_content_succeed_all(
    store_uri: str, tmp_path: Path, publishers: list[subprocess.Popen[str]]
) -> None:
    (one,) = contents(tmp_path, b"a")
    for number in range(12):
        uri = f"{store_uri}/{number}"
        assert at_once(publishers, *[f"keep {uri} {one}"] * 4) == ["done"] * 4
        bundle = open_bundle(Place.of(uri), tmp_path / "cache" / str(number))
        assert {bundle.path(name).read_bytes() for name in bundle.manifest.files} == {b"a" * 200_000}
        assert len(keys_of(uri)) == 3


def test_publishers_that_replace_each_other_leave_a_whole_bundle_of_one(
    store_uri: str, tmp_path: Path, publishers: list[subprocess.Popen[str]]
) -> None:
    lines = contents(tmp_path, b"a", b"b", b"c", b"a")
    for number in range(6):
        uri = f"{store_uri}/{number}"
        assert at_once(publishers, *(f"replace {uri} {line}" for line in lines)) == ["done"] * 4
        bundle = open_bundle(Place.of(uri), tmp_path / "cache" / str(number))
        assert len({bundle.path(name).read_bytes() for name in bundle.manifest.files}) == 1
        assert len(keys_of(uri)) == 3


def test_a_reader_finds_a_whole_bundle_while_others_replace_it_again_and_again(
    store_uri: str, tmp_path: Path, publishers: list[subprocess.Popen[str]]
) -> None:
    (one,) = contents(tmp_path, b"a")
    for path in one.split():
        Path(path + "2").write_bytes(Path(path).read_bytes()[:1].upper() * 100_000)
    publish_bundle(Place.of(store_uri), MANIFEST, {Path(path).name.split("-")[0]: Path(path) for path in one.split()})
    outcomes = at_once(
        publishers,
        f"read {store_uri}",
        f"alternate {store_uri} {one}",
        f"alternate {store_uri} {one}",
        f"read {store_uri}",
    )
    assert [outcome.split()[0] for outcome in outcomes] == ["read", "done", "done", "read"], outcomes
    assert len(keys_of(store_uri)) == 3


@pytest.mark.parametrize("content", [b"x" * 10_000, b"short"])
def test_a_damaged_file_is_refused_and_named(
    store_uri: str, files: dict[str, Path], cache: Path, content: bytes
) -> None:
    uri = publish_bundle(Place.of(store_uri), MANIFEST, files).uri
    key = key_of(uri, WEIGHTS)
    Place.of(uri).store.write_bytes(key, content)
    says = f"expected sha256 {sha256_file(files[WEIGHTS])}, found " if len(content) == 10_000 else "has 5 bytes"
    for _ in range(2):
        with pytest.raises(InputError, match=rf"{uri}/{key}: .*{says}"):
            open_bundle(Place.of(uri), cache)


def test_a_missing_file_is_refused_and_named(store_uri: str, files: dict[str, Path], cache: Path) -> None:
    uri = publish_bundle(Place.of(store_uri), MANIFEST, files).uri
    Place.of(uri).store.delete(key_of(uri, ONNX))
    with pytest.raises(InputError, match=r"model\.onnx"):
        open_bundle(Place.of(uri), cache)


def test_no_bundle_and_half_a_bundle_are_told(store_uri: str, files: dict[str, Path], cache: Path) -> None:
    with pytest.raises(InputError, match=rf"{store_uri}: there is no bundle\.json"):
        open_bundle(Place.of(store_uri), cache)


def _changed(**changes: object) -> bytes:
    return json.dumps(json.loads(MANIFEST.model_dump_json()) | changes).encode()


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b"{not json", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[]", "schema version None of bundles is not known here"),
        (_changed(schema_version=7), r"schema version 7 of bundles is not known here \(known: 1\)"),
        (_changed(model=3), "model: Input should be a valid string"),
        (_changed(colour="red"), "colour: Extra inputs are not permitted"),
        (_changed(files={"../../etc/passwd": {"size": 1, "sha256": "0"}}), "is not a key of a store"),
        (b'{"schema_version": 1}', "model: Field required"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path, document: bytes, says: str) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(document)
    with pytest.raises(InputError, match=f"{MANIFEST_NAME}: .*{says}") as caught:
        open_bundle(Place.of(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_remote_bundle_is_fetched_once_and_a_damaged_copy_again(
    minio_bucket: str, files: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = publish_bundle(Place.of(f"s3://{minio_bucket}/b"), MANIFEST, files).uri
    first = open_bundle(Place.of(uri), cache)
    store = type(Place.of(uri).store)
    get_file = store.get_file
    fetched: list[str] = []

    def watched(self: Store, key: str, path: Path, on_bytes: object = None) -> str:
        fetched.append(key)
        return get_file(self, key, path)

    monkeypatch.setattr(store, "get_file", watched)
    assert open_bundle(Place.of(uri), cache).path(ONNX) == first.path(ONNX)
    assert fetched == []
    first.path(ONNX).write_bytes(bytes(5_000))
    assert open_bundle(Place.of(uri), cache).path(ONNX).read_bytes() == files[ONNX].read_bytes()
    assert fetched == [key_of(uri, ONNX)]


def test_copies_are_kept_in_the_cache_folder_by_default(
    minio_bucket: str, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "mine"))
    bundle = publish_bundle(Place.of(f"minio://{minio_bucket}/b"), MANIFEST, files)
    assert bundle.folder.parent == tmp_path / "mine" / "bundles"


def test_a_local_bundle_is_used_where_it_is(tmp_path: Path, files: dict[str, Path]) -> None:
    bundle = publish_bundle(Place.of(tmp_path / "b"), MANIFEST, files)
    assert bundle.path(ONNX) == tmp_path / "b" / bundle.manifest.content_folder / ONNX


def test_a_derived_bundle_has_all_files_and_knows_its_parent(
    store_uri: str, files: dict[str, Path], cache: Path, tmp_path: Path
) -> None:
    parent = open_bundle(publish_bundle(Place.of(f"{store_uri}/1"), MANIFEST, files).place, cache)
    (tmp_path / "q").write_bytes(b"int8")
    uri = derive_bundle(
        parent, Place.of(f"{store_uri}/2"), {"model-int8.onnx": tmp_path / "q"}, metrics={"AP": 0.4}
    ).uri
    derived = open_bundle(Place.of(uri), cache)
    assert sorted(derived.manifest.files) == ["model-int8.onnx", ONNX, WEIGHTS]
    assert derived.path(WEIGHTS).read_bytes() == files[WEIGHTS].read_bytes()
    assert derived.manifest.parent == f"{store_uri}/1"
    assert derived.manifest.metrics == {"AP": 0.4}
    assert derived.manifest.anchors == MANIFEST.anchors
    assert derived.manifest.packages["torch"] == "0.0"


def test_a_bundle_is_not_derived_into_itself_nor_with_unknown_fields(tmp_path: Path, files: dict[str, Path]) -> None:
    bundle = publish_bundle(Place.of(tmp_path / "b"), MANIFEST, files)
    with pytest.raises(InputError, match="cannot be derived into its own folder"):
        derive_bundle(bundle, Place.of(tmp_path / "x" / ".." / "b"), {})
    with pytest.raises(InputError, match="metricks: Extra inputs are not permitted"):
        derive_bundle(bundle, Place.of(tmp_path / "c"), {}, metricks={})
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (MANIFEST_NAME, f"{MANIFEST_NAME} is the manifest of the bundle, not one of its files"),
        *((name, f"'{name}' is not a key of a store: its parts must not be empty") for name in ("../x", "/x", "")),
    ],
)
def test_a_file_needs_a_possible_name(tmp_path: Path, files: dict[str, Path], name: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        publish_bundle(Place.of(tmp_path / "b"), MANIFEST, {**files, name: files[ONNX]})
    with pytest.raises(InputError, match="there is no such file, which the bundle"):
        publish_bundle(Place.of(tmp_path / "b"), MANIFEST, {**files, "y": tmp_path / "absent"})
    assert not (tmp_path / "b").exists()


def test_a_publisher_that_is_killed_leaves_the_old_bundle(store_uri: str, files: dict[str, Path], cache: Path) -> None:
    publish_bundle(Place.of(store_uri), MANIFEST, files)
    before = files[WEIGHTS].read_bytes()
    files[WEIGHTS].write_bytes(os.urandom(3_000_000))
    code = (
        "import json, os, sys, signal; from pathlib import Path; from kubeyolo import bundle, publishing\n"
        "from kubeyolo.storage.place import Place\n"
        "class Killed(publishing.Progress):\n"
        "    def advance(self, count=1):\n"
        "        super().advance(count)\n"
        "        self.done > 1_000_000 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "publishing.Progress = Killed\n"
        "manifest = bundle.BundleManifest.model_validate_json(sys.argv[2])\n"
        "files = {name: Path(path) for name, path in eval(sys.argv[3])}\n"
        "publishing.publish_bundle(Place.of(sys.argv[1]), manifest, files)"
    )
    pairs = json.dumps([(name, str(path)) for name, path in files.items()])
    command = [sys.executable, "-c", code, store_uri, MANIFEST.model_dump_json(), pairs]
    assert subprocess.run(command, timeout=60, capture_output=True).returncode == -9
    assert open_bundle(Place.of(store_uri), cache).path(WEIGHTS).read_bytes() == before
    publish_bundle(Place.of(store_uri), MANIFEST, files)
    assert open_bundle(Place.of(store_uri), cache).path(WEIGHTS).stat().st_size == 3_000_000


def test_versions_are_read_without_importing_the_packages() -> None:
    code = (
        "import sys; from kubeyolo.publishing import package_versions; assert package_versions()['numpy'];"
        "sys.exit(any(name in sys.modules for name in ('mindspore', 'onnxruntime', 'cv2', 'numpy', 'minio')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
    assert set(package_versions()) <= set(publishing._PACKAGES)
