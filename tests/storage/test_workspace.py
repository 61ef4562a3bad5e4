"""Folders of unfinished work, and what is left of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kubeyolo.errors import InputError
from kubeyolo.storage.workspace import remove_remains, work_folder


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
