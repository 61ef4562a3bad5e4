"""What a machine lacks, in one line: what, where, what to do."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from kubeyolo.errors import InputError, WorkError
from kubeyolo.storage import file_errors as module
from kubeyolo.storage.file_errors import file_errors, machine_error, machine_errors, system_error
from kubeyolo.storage.local import LocalStore
from kubeyolo.storage.place import Place
from kubeyolo.storage.workspace import temporary_folder, work_folder


def fill() -> None:
    """Write where no byte fits; the system names no file."""
    with open("/dev/full", "wb", buffering=0) as file:
        file.write(b"1")


def error(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path)


def test_a_full_disk_is_named_with_what_is_needed_and_free(tmp_path: Path) -> None:
    with pytest.raises(WorkError) as raised, file_errors(tmp_path / "a" / "b", needed=5_300_000):
        fill()
    assert f"{tmp_path}/a/b: the disk is full (5.30 MB needed, " in str(raised.value)
    assert "B free); free some space" in str(raised.value)


def test_work_on_a_full_disk_is_named_by_its_place_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LARGEST_FILE", 1 << 62)
    monkeypatch.setattr(module, "available_bytes", lambda path: 500_000)
    full = pytest.raises(WorkError, match=rf"^{tmp_path}: the disk is full \(more than 800 kB needed, 800 kB free\)")
    with full, work_folder(tmp_path) as folder:
        (folder / "a").write_bytes(bytes(300_000))
        fill()
    assert list(tmp_path.iterdir()) == []
    # Where there is space, the disk that is full is another one.
    monkeypatch.setattr(module, "_LARGEST_FILE", 0)
    with pytest.raises(OSError, match="No space left"), machine_errors(tmp_path):
        fill()


def test_a_library_that_quotes_the_system_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LARGEST_FILE", 1 << 62)
    with (
        pytest.raises(WorkError, match=rf"^{tempfile.gettempdir()}: the disk is full"),
        temporary_folder("x") as folder,
    ):
        raise RuntimeError("serializing: I/O error: No space left on device (os error 28)")
    assert not folder.exists()


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.EROFS, InputError, "the file system is read-only; choose a different folder"),
        (errno.EACCES, InputError, "no permission; choose a different folder, or change its owner"),
        (errno.EDQUOT, WorkError, "your quota of the disk is used up; free some space"),
        (errno.ELOOP, InputError, "links that lead to each other"),
        (errno.EIO, WorkError, "Input/output error: the disk, or the network it is on, fails"),
        (errno.EMFILE, WorkError, "open files; raise the limit ('ulimit -n')"),
    ],
)
def test_what_a_machine_lacks_has_a_remedy_and_an_exit_code(number: int, kind: type[Exception], words: str) -> None:
    known = machine_error(error(number, "/data/store/.0a1b.kubeyolo-part/train.tar"))
    assert isinstance(known, kind) and str(known).startswith("/data/store: ") and words in str(known)


@pytest.mark.parametrize(
    "raised", [MemoryError(), MemoryError("Unable to allocate 3 GiB"), RuntimeError("std::bad_alloc")]
)
def test_memory_that_is_refused_is_named_whoever_says_so(raised: Exception) -> None:
    system = system_error(raised)
    assert system is not None
    known = machine_error(system)
    assert isinstance(known, WorkError) and str(known).startswith("out of memory: allow more")
    assert "lower the batch, the image size, data.workers or data.cache_limit_mb" in str(known)


def test_a_limit_of_addresses_is_named() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "from kubeyolo.storage.file_errors import machine_error, system_error\n"
        "try:\n    bytearray(2 << 30)\nexcept MemoryError as error:\n    print(machine_error(system_error(error)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "address space limited to 1.07 GB by 'ulimit -v'" in done.stdout


def test_a_name_that_is_too_long_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="longer than the file system allows"), file_errors(tmp_path):
        (tmp_path / ("x" * 300)).write_bytes(b"")


def test_the_remedy_is_the_variable_that_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    for folder, remedy in {
        str(tmp_path / "cache" / "locks"): "set KUBEYOLO_CACHE to a folder that can be written",
        tempfile.gettempdir(): "set TMPDIR to a folder that can be written",
        "/data": "choose a different folder",
    }.items():
        assert str(machine_error(error(errno.EROFS, folder))) == f"{folder}: the file system is read-only; {remedy}"


def test_other_errors_are_not_the_machines() -> None:
    assert machine_error(error(errno.ENOENT, "/x")) is None
    assert machine_error(error(errno.EACCES)) is None
    with pytest.raises(ZeroDivisionError), machine_errors(Path("/x")):
        raise ZeroDivisionError


LIMITED = """
import resource, sys
from kubeyolo.errors import WorkError
from pathlib import Path
from kubeyolo.storage.place import Place
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    Place.of(sys.argv[1]).store.put_tree(Path(sys.argv[2]), sys.argv[3], last=sys.argv[4] or None)
except WorkError as error:
    print(error)
"""


@pytest.mark.parametrize("last", ["manifest.json", ""])
def test_of_a_tree_that_cannot_be_written_nothing_stays(tmp_path: Path, last: str) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    (source / "below").mkdir(parents=True)
    for name, size in {"a": 10, "below/large": 5000, "manifest.json": 2}.items():
        (source / name).write_bytes(bytes(size))
    Place.of(store).store.write_bytes("kept/a", b"1")
    arguments = [str(store), str(source), "new", last]
    done = subprocess.run([sys.executable, "-c", LIMITED, *arguments], capture_output=True, text=True, timeout=60)
    assert f"{store}/new/below/large: larger than the limit for a file, 4000 bytes" in done.stdout, done.stderr
    assert [path.relative_to(store).as_posix() for path in store.rglob("*")] == ["kept", "kept/a"]


def test_an_output_that_cannot_be_written_is_known_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path / "a" / "b")
    store.check_writable()
    assert not (tmp_path / "a").exists()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=f"^{tmp_path}/a/b: no permission"):
        store.check_writable()


def test_without_a_limit_of_the_shell_it_is_the_file_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    said = "/x/a: too large for this file system; choose a different folder"
    assert str(machine_error(error(errno.EFBIG, "/x/a"))) == said
