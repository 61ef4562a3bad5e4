"""What only a folder can do wrong."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kubeyolo.errors import InputError, WorkError
from kubeyolo.storage import conditional_file, integrity
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
    with pytest.raises(InputError, match="this is a file, but a store is a folder"):
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


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_where_a_file_system_has_no_links_one_of_many_creates_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def link(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)
    store = LocalStore(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda number: store.create_bytes("k", b"%d" % number), range(8)))
    assert sum(created) == 1
    assert store.read_bytes("k") == b"%d" % created.index(True)
    assert [stored.key for stored in store.list()] == ["k"]


def test_a_link_whose_answer_was_lost_is_known_as_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", twice)
    assert LocalStore(tmp_path).create_bytes("k", b"mine")
    assert not LocalStore(tmp_path).create_bytes("k", b"mine")


def test_the_lock_of_a_folder_holds_when_the_folder_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    store = LocalStore(folder)
    store.write_bytes("k", b"old")
    inside, waiting = threading.Event(), threading.Event()

    def hold() -> None:
        with conditional_file.folder_lock(folder):
            inside.set()
            waiting.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(10)
    with ThreadPoolExecutor(1) as pool:
        replaced = pool.submit(store.replace_bytes, "k", b"new", store.read_version("k")[1])
        time.sleep(0.1)
        assert not replaced.done()
        shutil.rmtree(folder)
        store.write_bytes("k", b"old")
        waiting.set()
        assert replaced.result(10)
    holder.join()
    assert store.read_bytes("k") == b"new"


def test_who_may_write_in_a_folder_may_lock_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o775)
    with conditional_file.folder_lock(tmp_path):
        assert (tmp_path / conditional_file.LOCK_NAME).stat().st_mode & 0o777 == 0o664
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_created_where_a_folder_is(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write_bytes("folder/k", b"1")
    with pytest.raises(InputError, match="this is a folder, not a file"):
        store.create_bytes("folder", b"x")
    assert [stored.key for stored in store.list()] == ["folder/k"]
