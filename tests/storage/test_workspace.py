"""Folders of unfinished work, and what is left of them."""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from kubeyolo.errors import InputError
from kubeyolo.storage.workspace import remove_remains, temporary_folder, work_folder


def test_a_work_folder_is_gone_after_its_block_unless_it_was_renamed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), work_folder(tmp_path / "a") as folder:
        (folder / "file").write_bytes(b"1")
        raise ZeroDivisionError
    assert list((tmp_path / "a").iterdir()) == []
    with work_folder(tmp_path / "a") as folder:
        (folder / "file").write_bytes(b"1")
        folder.rename(tmp_path / "a" / "done")
    assert [path.name for path in (tmp_path / "a").rglob("*")] == ["done", "file"]


def test_remains_are_removed_but_not_the_work_of_others(tmp_path: Path) -> None:
    left, young = tmp_path / ".1.kubeyolo-part", tmp_path / ".2.kubeyolo-part"
    for folder in (left, young):
        folder.mkdir()
        (folder / "file").write_bytes(b"1")
    os.utime(left, (0, 0))
    with work_folder(tmp_path) as held:
        os.utime(held, (0, 0))
        remove_remains(tmp_path)
        assert held.is_dir() and young.is_dir() and not left.exists()


def test_a_place_where_no_folder_can_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nope")):
        with pytest.raises(InputError, match=str(place)), work_folder(place):
            pass


def test_a_clock_that_was_set_back_does_not_keep_remains(tmp_path: Path) -> None:
    left = tmp_path / ".1.kubeyolo-part"
    left.mkdir()
    os.utime(left, (time.time() + 86_400,) * 2)
    remove_remains(tmp_path)
    assert not left.exists()


def test_a_folder_that_is_taken_for_remains_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, removed = fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        if not removed:
            removed.extend(tmp_path.iterdir())
            removed[0].rmdir()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with work_folder(tmp_path) as folder:
        assert folder.is_dir() and folder != removed[0]


KILLED = """
import sys, time
from kubeyolo.storage.workspace import temporary_folder
with temporary_folder("launch") as folder:
    (folder / "half").write_bytes(b"1")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_has_left_among_temporary_folders_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    (tmp_path / "target").mkdir()
    (tmp_path / f"kubeyolo-launch-{platform.node()}-link").symlink_to("target")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        os.utime(left, (0, 0))
        with temporary_folder("other"):
            assert left.is_dir()
        process.kill()
    with temporary_folder("other") as folder:
        assert not left.exists() and folder.is_dir()
    assert (tmp_path / "target").is_dir() and len(list(tmp_path.iterdir())) == 2
