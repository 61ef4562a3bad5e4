"""URIs: what they point at, and how they are split and joined."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubeyolo.errors import InputError
from kubeyolo.storage.base import PART_SUFFIX
from kubeyolo.storage.location import BucketLocation, FileLocation, parse
from kubeyolo.storage.uri import join_uri, open_store, split_uri


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
        ("gs://bucket/x", "stores of kind 'gs' are not known"),
        ("file://host/x", "three slashes"),
        ("minio:///x", "cannot be the name of a bucket"),
        ("minio://Bucket/x", "cannot be the name of a bucket"),
        ("minio://bucket/../x", "is no key of a store"),
        ("minio://bucket//x", "is no key of a store"),
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
    for uri in ("minio://bucket", "minio://bucket/", "file:///", "/"):
        with pytest.raises(InputError):
            split_uri(uri)


def possible(part: str) -> bool:
    return "/" not in part and part not in (".", "..") and not part.endswith(PART_SUFFIX)


characters = st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs"))
segments = st.text(characters, min_size=1, max_size=20).filter(possible)


@given(st.lists(segments, min_size=1, max_size=4))
def test_uris_of_keys_lead_back_to_their_keys(parts: list[str]) -> None:
    key = "/".join(parts)
    assert parse(join_uri("file:///root", key)) == FileLocation(Path("/root") / key)
    assert parse(join_uri("minio://bucket/root", key)) == BucketLocation("minio", "bucket", f"root/{key}")
    assert open_store("/root/of/no/store").uri_of(key) == join_uri("/root/of/no/store", key)
    assert split_uri(join_uri("/root", key))[1] == parts[-1]


def test_folders_need_no_client_of_object_stores() -> None:
    code = (
        "import sys; from kubeyolo.storage.uri import open_store; open_store('/tmp').exists('x');"
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
    with pytest.raises(InputError, match="^store: the current folder is not there any more"):
        parse("store")
    assert parse("/data") == FileLocation(Path("/data"))
    with pytest.raises(InputError, match="there is no home folder for '~nobody-of-this-name'"):
        parse("~nobody-of-this-name/store")
