"""Checksums that are remembered while a file is not written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kubeyolo.storage import checksums
from kubeyolo.storage.checksums import remembered_sha256
from kubeyolo.storage.integrity import sha256_bytes
from kubeyolo.storage.place import Place

LARGE = b"x" * (checksums._SMALL + 1)


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read for their checksum."""
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    # These tests do not wait until a file is old enough to be remembered.
    monkeypatch.setattr(checksums, "_SETTLED_SECONDS", -60.0)
    found: list[Path] = []
    real = checksums.sha256_file

    def read(path: Path) -> str:
        found.append(path)
        return real(path)

    monkeypatch.setattr(checksums, "sha256_file", read)
    return found


def test_a_file_is_read_once_while_it_is_not_written(tmp_path: Path, reads: list[Path]) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE)
    assert remembered_sha256(path) == remembered_sha256(path) == sha256_bytes(LARGE)
    assert reads == [path]


def test_a_file_of_the_same_size_and_time_is_read_again_when_it_was_written(tmp_path: Path, reads: list[Path]) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE)
    before = path.stat()
    remembered_sha256(path)
    path.write_bytes(b"y" + LARGE[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert remembered_sha256(path) == sha256_bytes(b"y" + LARGE[1:])
    assert len(reads) == 2


def test_a_file_that_was_written_just_now_is_not_remembered(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another write within the same tick of the clock would leave the same times."""
    monkeypatch.setattr(checksums, "_SETTLED_SECONDS", 60.0)
    path = tmp_path / "file"
    path.write_bytes(LARGE)
    assert remembered_sha256(path) == remembered_sha256(path)
    assert len(reads) == 2


@pytest.mark.parametrize("garbage", ["", "[]", "{}", '{"state": 1}'])
def test_garbage_in_the_memory_costs_time_alone(tmp_path: Path, reads: list[Path], garbage: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE)
    remembered_sha256(path)
    (note,) = (each for each in (tmp_path / "cache").rglob("*") if each.is_file())
    note.write_text(garbage)
    assert remembered_sha256(path) == sha256_bytes(LARGE)


def test_every_store_knows_the_checksum_of_what_it_has(tmp_path: Path, minio_bucket: str) -> None:
    for uri in (tmp_path.as_uri(), f"minio://{minio_bucket}/checksums"):
        store = Place.of(uri).store
        store.write_bytes("a", b"content")
        assert store.checksum("a") == sha256_bytes(b"content"), uri
