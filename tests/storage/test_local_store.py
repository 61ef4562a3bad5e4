"""What only a folder can do wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kubeyolo.errors import InputError, WorkError
from kubeyolo.storage import integrity
from kubeyolo.storage.local import LocalStore


def test_files_are_used_where_they_are(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.write_bytes("a/b", b"data")
    assert store.local_path("a/b") == tmp_path / "store" / "a" / "b"
    before = store.local_path("a/b").stat()
    assert store.put_file(tmp_path / "store/a/b", "a/b") == integrity.sha256_bytes(b"data")
    store.get_file("a/b", tmp_path / "store/a/b")
    assert store.local_path("a/b").stat().st_ino == before.st_ino


def test_a_store_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="this is a file, a store is a folder"):
        LocalStore(tmp_path / "file")


def test_a_write_below_a_file_is_refused_with_its_path(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write_bytes("a", b"1")
    with pytest.raises(InputError, match="there is a file where a folder is needed"):
        store.write_bytes("a/b", b"2")
    with pytest.raises(InputError, match="this is a folder"):
        store.child("x").write_bytes("y/z", b"3") or store.write_bytes("x/y", b"4")


def test_a_folder_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write everywhere, so the refusal is made up.
    def refuse(old: Path, new: Path) -> None:
        raise PermissionError(13, os.strerror(13), str(new))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(InputError, match=f"{tmp_path}/a: no permission"):
        LocalStore(tmp_path).write_bytes("a", b"1")
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_failed_work_and_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.write_bytes("a", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkError, match="the disk is full"):
        store.write_bytes("a", b"new")
    assert store.read_bytes("a") == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda old, new: (calls.append("replace"), replace(old, new)))
    LocalStore(tmp_path).write_bytes("a", b"1")
    assert calls == ["fsync", "replace", "fsync"], "the file, its name, the folder"
