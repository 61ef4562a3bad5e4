"""URIs: what they point at, and how they are split and joined."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubeyolo.errors import InputError
from kubeyolo.storage.base import PART_SUFFIX
from kubeyolo.storage.location import BucketLocation, FileLocation, absolute, parse
from kubeyolo.storage.place import Place


def test_paths_and_file_uris_are_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    here = FileLocation(tmp_path / "a b%41")
    assert parse(str(tmp_path / "a b%41")) == parse("a b%41") == parse("./x/../a b%41") == here
    assert parse(f"file://{tmp_path}/a%20b%2541") == parse(f"file://localhost{tmp_path}/a%20b%2541/") == here
    assert parse("~/data") == FileLocation(Path("/home/someone/data"))


def test_buckets_have_two_schemes() -> None:
    assert parse("minio://bucket/a b/%41") == BucketLocation("minio", "bucket", "a b/%41")
    assert parse("s3://bucket") == parse("S3://bucket/") == BucketLocation("s3", "bucket", "")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("", "is empty"),
        ("mini://bucket/x", "did you mean 'minio'"),
        ("gs://bucket/x", "unknown kind of store 'gs'"),
        ("file://host/x", "three slashes"),
        ("minio:///x", "cannot be the name of a bucket"),
        ("minio://Bucket/x", "cannot be the name of a bucket"),
        ("minio://bucket/../x", "is not a key of a store"),
        ("minio://bucket//x", "is not a key of a store"),
    ],
)
def test_a_wrong_uri_is_refused_with_its_reason(uri: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse(uri)


def test_a_uri_is_split_into_store_and_name() -> None:
    assert split_uri("minio://bucket/a/b.json") == ("minio://bucket/a", "b.json")
    assert split_uri("s3://bucket/b.json") == ("s3://bucket", "b.json")
    assert split_uri("/data/a b/c%.json") == ("file:///data/a%20b", "c%.json")
    assert split_uri("file:///data/x%20y") == ("file:///data", "x y")
    for uri in ("minio://bucket", "minio://bucket/"):
        with pytest.raises(InputError, match=f"^{uri.rstrip('/')}: this is a bucket, not an object in it$"):
            split_uri(uri)
    for uri in ("file:///", "/"):
        with pytest.raises(InputError, match="^file:///: this is the root folder, not a file in it$"):
            split_uri(uri)


def split_uri(uri: str) -> tuple[str, str]:
    """Return the URI of the folder that something lies in, and its name."""
    return Place.of(uri).parent.uri, Place.of(uri).name


def possible(part: str) -> bool:
    return "/" not in part and part not in (".", "..") and not part.endswith(PART_SUFFIX)


characters = st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs"))
segments = st.text(characters, min_size=1, max_size=20).filter(possible)


@given(st.lists(segments, min_size=1, max_size=4))
def test_uris_of_keys_lead_back_to_their_keys(parts: list[str]) -> None:
    key = "/".join(parts)
    assert parse((Place.of("file:///root") / key).uri) == FileLocation(Path("/root") / key)
    assert parse((Place.of("minio://bucket/root") / key).uri) == BucketLocation("minio", "bucket", f"root/{key}")
    assert Place.of("/root/of/no/store").store.uri_of(key) == (Place.of("/root/of/no/store") / key).uri
    assert split_uri((Place.of("/root") / key).uri)[1] == parts[-1]


# All that a path may have: percent signs, spaces, '#', '?', line ends, other scripts.
anything = st.characters(exclude_categories=["Cs"], exclude_characters="/\0")
path_names = st.text(anything, min_size=1, max_size=12).filter(lambda name: name not in (".", ".."))
paths = st.lists(path_names, min_size=1, max_size=4).map(lambda names: "/" + "/".join(names))
buckets = st.from_regex(r"[a-z0-9][a-z0-9.-]{1,20}[a-z0-9]", fullmatch=True)
schemes = st.sampled_from(["minio", "s3"])
locations = st.builds(FileLocation, paths.map(Path)) | st.builds(
    BucketLocation, schemes, buckets, st.lists(segments, max_size=3).map("/".join)
)


@given(locations)
def test_the_uri_of_a_location_leads_back_to_it(location: FileLocation | BucketLocation) -> None:
    assert parse(location.uri) == location
    assert not isinstance(location, FileLocation) or location.uri.isascii()
    assert not location.uri.endswith("/")
    # What is stored is read again from any folder.
    assert parse(absolute(location.uri)) == location and absolute(absolute(location.uri)) == absolute(location.uri)


@given(paths, st.sampled_from(["", "./", "x/../"]), st.sampled_from(["", "/", "//", "/."]))
def test_a_path_is_the_same_however_it_is_written(path: str, start: str, end: str) -> None:
    written = "/" + start + path[1:] + end
    assert parse(written) == FileLocation(Path(path))
    assert parse(f"file://{quote(written)}") == parse(f"FILE://localhost{quote(written)}") == FileLocation(Path(path))


@given(locations, segments)
def test_what_is_joined_is_split_again(location: FileLocation | BucketLocation, name: str) -> None:
    assert split_uri((Place.of(location.uri) / name).uri) == (location.uri, name)


hostile = ["", ".", "..", "a", "b c", "%2e%2e", "\n", "\ud800", "\\", "~", "x" * 300]


@given(st.lists(st.sampled_from(hostile), max_size=5).map("/".join) | st.text(max_size=20), locations)
@settings(max_examples=200)
def test_no_name_leads_out_of_a_store(key: str, location: FileLocation | BucketLocation) -> None:
    try:
        joined = parse((Place.of(location.uri) / key).uri)
    except InputError as error:
        assert "is not a key of a store" in str(error) and "\n" not in str(error)
        return
    assert "\n" not in key and not {"", ".", ".."} & {*key.split("/")}
    if isinstance(location, FileLocation):
        assert joined == FileLocation(location.path / key) and joined.path.is_relative_to(location.path)
    else:
        prefix = f"{location.prefix}/" if location.prefix else ""
        assert joined == BucketLocation(location.scheme, location.bucket, prefix + key)


digests = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(locations.map(lambda location: location.uri), digests, digests)
def test_a_reference_is_split_into_what_it_was_made_of(uri: str, digest: str, other: str) -> None:
    assert (Place.of(uri).uri, Place.of(uri).digest) == (uri, "")
    reference = Place.of(f"{uri}@sha256:{digest}")
    assert (reference.uri, reference.digest) == (uri, digest)
    assert reference == Place.of(uri).pinned(digest) and Place.of(reference.reference) == reference
    # The last one counts: a URI may itself end like a reference.
    inner = f"{uri}/a@sha256:{other}"
    twice = Place.of(f"{inner}@sha256:{digest}")
    assert (twice.uri, twice.digest) == (Place.of(f"{inner}x").uri[:-1], digest)
    for damaged in (digest[1:], digest.upper().replace("0", "A"), f"{digest}0"):
        assert Place.of(f"{uri}/a@sha256:{damaged}").digest == ""


@given(digests, digests)
def test_content_of_another_digest_is_refused(expected: str, found: str) -> None:
    place = Place.of("minio://bucket/x")
    place.check_digest(found)
    place.pinned(found).check_digest(found)
    if expected != found:
        with pytest.raises(InputError, match=f"expected sha256 {expected[:12]}…, found {found[:12]}…; run the step"):
            place.pinned(expected).check_digest(found)


def test_folders_need_no_client_of_object_stores() -> None:
    code = (
        "import sys; from kubeyolo.storage.place import Place; Place.of('/tmp').store.exists('x');"
        "sys.exit(any(name in sys.modules for name in ('minio', 'urllib3', 'mindspore', 'rich')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize("uri", [os.fsdecode(b"/data/caf\xe9/store"), "file:///data/caf%E9/store"])
def test_a_path_that_is_not_utf8_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="is not UTF-8; rename it, or make a link to it"):
        parse(uri)


def test_a_folder_that_is_not_there_any_more_and_a_home_that_is_none_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(InputError, match="^store: the current folder no longer exists"):
        parse("store")
    assert parse("/data") == FileLocation(Path("/data"))
    with pytest.raises(InputError, match="there is no home folder for '~nobody-of-this-name'"):
        parse("~nobody-of-this-name/store")
