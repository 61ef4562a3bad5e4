"""Only regular files are opened, at once, and up to a size."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kubeyolo.errors import InputError
from kubeyolo.regular_files import open_regular, read_regular


def test_a_file_is_read_whole_up_to_its_largest_size(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(InputError, match=r"a: 5 B, at most 4 B allowed.*check the file"):
        read_regular(path, 4)
    (tmp_path / "link").symlink_to(path)
    assert read_regular(tmp_path / "link", 5) == b"12345"


def test_a_file_of_the_kernel_has_no_size_and_is_bounded_while_it_is_read() -> None:
    assert read_regular("/proc/self/status", 1 << 20).startswith(b"Name:")
    with pytest.raises(InputError, match="more than 10 B"):
        read_regular("/proc/self/status", 10)


def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    start = time.monotonic()
    with pytest.raises(InputError, match="this is a named pipe, not a file"):
        open_regular(tmp_path / "pipe")
    assert time.monotonic() - start < 5


def test_a_device_is_refused_and_a_folder_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="/dev/zero: this is a device"):
        read_regular("/dev/zero", 10)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "absent")


def test_a_sparse_file_is_refused_by_its_size(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="at most 1.05 MB allowed"):
        read_regular(tmp_path / "sparse", 1 << 20)
