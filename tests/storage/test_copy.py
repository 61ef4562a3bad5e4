"""Folders and files copied between stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeyolo.data.layouts.tree import list_files
from kubeyolo.errors import InputError
from kubeyolo.storage.base import Store
from kubeyolo.storage.copy import copy_file, copy_tree, is_file
from kubeyolo.storage.local import LocalStore
from kubeyolo.storage.place import Place

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
    assert content(Place.of(second).store) == content(LocalStore(tmp_path / "back")) == FILES


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
    with pytest.raises(InputError, match="the target is the same as the source"):
        copy_tree(str(folder), str(folder))


def test_a_file_goes_under_the_name_that_is_given(folder: Path, tmp_path: Path, store_uri: str) -> None:
    target = f"{store_uri}/data/latest.json"
    assert is_file(str(folder / "done.json")) and not is_file(target)
    assert copy_file(str(folder / "done.json"), target) == (1, 2)
    assert is_file(target) and not is_file(f"{store_uri}/data")
    (folder / "done.json").write_bytes(b"[1]")
    assert copy_file(str(folder / "done.json"), target) == (1, 3)
    assert content(Place.of(store_uri).store) == {"data/latest.json": b"[1]"}
    other = f"{store_uri}/other.json"
    assert copy_file(target, other) == (1, 3)
    assert copy_file(other, str(tmp_path / "back" / "latest.json")) == (1, 3)
    assert content(LocalStore(tmp_path / "back")) == {"latest.json": b"[1]"}


def test_a_file_does_not_take_the_place_of_a_folder_or_itself(folder: Path, store_uri: str) -> None:
    source = str(folder / "done.json")
    copy_file(source, f"{store_uri}/data/done.json")
    for target in (f"{store_uri}/data", f"{store_uri}/new/"):
        with pytest.raises(InputError, match=f"^{target}: this is a folder; .* {target.rstrip('/')}/done.json$"):
            copy_file(source, target)
    with pytest.raises(InputError, match="the target is the same as the source"):
        copy_file(f"{store_uri}/data/done.json", f"{store_uri}/data/done.json")
    assert list(content(Place.of(store_uri).store)) == ["data/done.json"]


def test_a_file_that_is_cut_off_leaves_the_old_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target" / "latest.json"
    copy_file(str(folder / "done.json"), str(target))

    def cut_off(source: Path, part: Path, on_bytes: object = None) -> str:
        part.write_bytes(b"[")
        raise KeyboardInterrupt

    monkeypatch.setattr("kubeyolo.storage.local.copy_with_sha256", cut_off)
    with pytest.raises(KeyboardInterrupt):
        copy_file(str(folder / "a" / "1.bin"), str(target))
    assert content(LocalStore(target.parent)) == {"latest.json": b"{}"}


def test_links_are_followed_as_they_are_when_a_data_set_is_read(tmp_path: Path) -> None:
    pool, source, target = tmp_path / "pool", tmp_path / "data", tmp_path / "copy"
    (pool / "deep").mkdir(parents=True)
    source.mkdir()
    (pool / "deep/a.jpg").write_bytes(b"a")
    (pool / "b.jpg").write_bytes(b"b")
    (source / "images").symlink_to(pool)
    (source / "c.jpg").symlink_to(pool / "b.jpg")
    (pool / "again").symlink_to(source)
    (source / "itself").symlink_to(".")
    (source / "nowhere").symlink_to("missing")
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/d.jpg").write_bytes(b"d")
    (source / "deep/er/link").symlink_to(source / "deep")
    copy_tree(str(source), str(target))
    copied = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert copied == {name for name in list_files(source) if name != "nowhere"}
    assert {"images/deep/a.jpg", "images/b.jpg", "c.jpg", "deep/d.jpg"} <= copied
    assert not [name for name in copied if "link" in name]
    assert not any(path.is_symlink() for path in target.rglob("*"))
