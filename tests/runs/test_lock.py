"""One run of a name at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kubeyolo.errors import InputError
from kubeyolo.runs.folder import run_lock


def test_a_held_lock_is_refused_with_the_name_and_the_process(tmp_path: Path) -> None:
    path = tmp_path / "my-run" / "lock"
    with run_lock(path):
        assert path.read_text() == f"{os.getpid()}\n"
        with pytest.raises(InputError, match=rf"my-run: .* \(process {os.getpid()}\)"), run_lock(path):
            pass
    with run_lock(path):
        pass


def test_a_stale_lock_file_does_not_stand_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("999999\n")
    with run_lock(path):
        assert path.read_text() == f"{os.getpid()}\n"
