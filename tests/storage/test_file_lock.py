"""Locks where the file system has none."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import SoftFileLease

from kubeyolo.errors import InputError
from kubeyolo.runs.folder import run_lock
from kubeyolo.storage.base import PART_SUFFIX
from kubeyolo.storage.claim import claimed
from kubeyolo.storage.conditional_file import LOCK_NAME
from kubeyolo.storage.local import LocalStore
from kubeyolo.storage.place import Place
from kubeyolo.storage.workspace import work_folder

LOCKED = """
import sys, time
from pathlib import Path
from kubeyolo.runs.folder import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
NO_LOCKS = """
import errno, fcntl
def flock(*_):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""


@pytest.fixture(autouse=True, params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: Any) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_of_many_that_replace_the_same_content_one_writes(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.write_bytes("count", b"0")
    won = []

    def count() -> None:
        for _ in range(5):
            while True:
                data, etag = store.read_version("count")
                if store.replace_bytes("count", str(int(data) + 1).encode(), etag):
                    won.append(1)
                    break

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert store.read_bytes("count") == b"20" and len(won) == 20
    assert [stored.key for stored in store.list()] == ["count"]


def test_what_another_machine_has_left_does_not_stand_in_the_way_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubeyolo.storage.file_lock._LEASE_SECONDS", 1.0)
    store = LocalStore(tmp_path)
    store.write_bytes("a", b"1")
    etag = store.read_version("a")[1]
    neighbour = tmp_path / f".{LOCK_NAME.removeprefix('.')}.held{PART_SUFFIX}"
    with SoftFileLease(neighbour, lease_duration=1.0):
        left = neighbour.read_text().replace(platform.node(), "far")
    neighbour.write_text(left)
    begun = time.monotonic()
    assert store.replace_bytes("a", b"2", etag)
    assert 0.9 < time.monotonic() - begun < 10


def test_a_run_that_is_under_way_is_refused_until_its_process_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "run" / ".lock"
    command = [sys.executable, "-c", NO_LOCKS + LOCKED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"already running here .process {process.pid}"), run_lock(path):
            pass
        process.kill()
    with run_lock(path):
        pass


def test_claims_and_work_folders_do_without(tmp_path: Path) -> None:
    with claimed(Place.of(tmp_path / "o")), work_folder(tmp_path / "work") as folder, work_folder(tmp_path / "work"):
        # Nobody knows whose it is, so nobody removes it.
        assert folder.is_dir()
    assert list((tmp_path / "work").iterdir()) == []
