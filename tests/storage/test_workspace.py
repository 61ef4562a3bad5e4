"""Folders of unfinished work, and what is left of them."""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from kubeyolo.errors import InputError
from kubeyolo.storage.local import LocalStore
from kubeyolo.storage.parts import part_file, remove_remains
from kubeyolo.storage.workspace import temporary_folder, work_folder


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
    left, grave = tmp_path / ".1.kubeyolo-part", tmp_path / ".2.kubeyolo-part"
    for folder in (left, grave):
        folder.mkdir()
        (folder / "file").write_bytes(b"1")
    (tmp_path / ".1.lock.kubeyolo-part").touch()
    (tmp_path / ".3.kubeyolo-part").write_bytes(b"half a file")
    (tmp_path / ".4.lock.kubeyolo-part").touch()
    (tmp_path / ".5.kubeyolo-part").symlink_to("file")
    with work_folder(tmp_path) as held, part_file(tmp_path / "file") as part:
        os.utime(held, (0, 0))
        os.utime(part, (0, 0))
        remove_remains(tmp_path)
        assert held.is_dir() and part.is_file()
        assert {path.name for path in tmp_path.iterdir()} - {held.name, part.name} == {
            f"{held.name.removesuffix('.kubeyolo-part')}.lock.kubeyolo-part",
            ".5.kubeyolo-part",
        }
    assert [path.name for path in tmp_path.iterdir()] == [".5.kubeyolo-part"]


def test_the_first_write_of_a_process_into_a_folder_removes_the_remains_there(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for name, write in {
        "write": lambda: store.write_bytes("write/k", b"1"),
        "create": lambda: store.create_bytes("create/k", b"1"),
        "put": lambda: store.put_file(Path(__file__), "put/k"),
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / ".1.kubeyolo-part").write_bytes(b"half a file")
        write()
        assert [path.name for path in (tmp_path / name).iterdir()] == ["k"]
    (tmp_path / "put" / ".2.kubeyolo-part").write_bytes(b"half a file")
    store.remove_remains("put")
    assert [path.name for path in (tmp_path / "put").iterdir()] == ["k"]


def test_a_place_where_no_folder_can_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nope")):
        with pytest.raises(InputError, match=str(place)), work_folder(place):
            pass


def test_a_folder_that_is_taken_for_remains_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, removed = fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        if not removed:
            removed.extend(tmp_path.iterdir())
            removed[0].unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with work_folder(tmp_path) as folder:
        assert folder.is_dir() and folder.name != removed[0].name.replace(".lock", "")


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
        with temporary_folder("other"):
            assert left.is_dir()
        process.kill()
    with temporary_folder("other") as folder:
        assert not left.exists() and folder.is_dir()
    assert (tmp_path / "target").is_dir() and len(list(tmp_path.iterdir())) == 2
