"""Folders copied between stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeyolo.errors import InputError
from kubeyolo.storage.base import Store
from kubeyolo.storage.copy import copy_tree
from kubeyolo.storage.local import LocalStore
from kubeyolo.storage.uri import open_store

FILES = {"a/1.bin": b"1" * 1000, "a/b/2.bin": b"2" * 2000, "done.json": b"{}"}


def content(store: Store) -> dict[str, bytes]:
    return {stored.key: store.read_bytes(stored.key) for stored in store.list()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(data)
    return tmp_path / "source"


def test_a_folder_goes_into_a_bucket_to_another_one_and_back(folder: Path, tmp_path: Path, minio_bucket: str) -> None:
    first, second = f"minio://{minio_bucket}/first", f"minio://{minio_bucket}/second"
    assert copy_tree(str(folder), first) == (3, 3002)
    assert copy_tree(first, second) == (3, 3002)
    assert copy_tree(second, str(tmp_path / "back")) == (3, 3002)
    assert content(open_store(second)) == content(LocalStore(tmp_path / "back")) == FILES


def test_the_file_that_says_all_is_there_is_written_last(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    put_file = LocalStore.put_file

    def noted(store: LocalStore, path: Path, key: str, on_bytes: object = None) -> str:
        written.append(key)
        return put_file(store, path, key)

    monkeypatch.setattr(LocalStore, "put_file", noted)
    copy_tree(str(folder), str(tmp_path / "target"), last=("other.json", "done.json"))
    assert sorted(written) == sorted(FILES) and written[-1] == "done.json"


def test_nothing_to_copy_and_a_copy_onto_itself_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: there is nothing to copy"):
        copy_tree(str(tmp_path / "absent"), str(tmp_path / "target"))
    with pytest.raises(InputError, match="the target is the source"):
        copy_tree(str(folder), str(folder))
