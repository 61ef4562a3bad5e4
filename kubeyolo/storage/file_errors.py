"""Errors of the file system as one line: what, where, and what to do."""

from __future__ import annotations

import errno
import os
import re
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path

from kubeyolo.errors import InputError, KubeyoloError, WorkError
from kubeyolo.formats import size_text
from kubeyolo.memory import is_lack_of_memory, lower
from kubeyolo.storage.base import PART_SUFFIX, NotFound
from kubeyolo.storage.cache import CACHE, cache_root

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_PERMISSION = {errno.EACCES, errno.EPERM}
_LIMITS = {errno.EMFILE, errno.ENFILE, errno.EFBIG, errno.ENOMEM}
_MACHINE = {*_FULL, *_NO_PERMISSION, *_LIMITS, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ESTALE}

_LARGEST_FILE = 4 << 30
"""Bytes: a file system with more free space than this has room for any file that kubeyolo writes."""

_NEXT_TO_NOTHING = 1 << 20
"""Bytes: a file system with less than this is full."""

_BLOCKS = 1 << 16
"""Bytes: if more than this is free, a new file does not fail for lack of disk space."""

_MOST_CHARACTERS = 120

_RUST_NUMBER = re.compile(r"\(os error (\d+)\)")


def make_folder(path: Path) -> Path:
    """Make a folder and its parents, unless they exist; return the folder.

    Raises:
        InputError: A file has this path, or no folder can be made there.
        WorkError: The disk is full.
    """
    with file_errors(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:
            # In a virtual file system, such as /proc.
            raise InputError(f"{path}: no folder can be made there; choose a different folder") from error
    return path


def writable_folder(option: str, folder: Path) -> None:
    """Make a folder that an option names, with its parents.

    Raises:
        InputError: The folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{option} {folder}: the folder cannot be created: {error.strerror}; give a different folder"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{option} {folder}: the folder is not writable; give a different folder")


def missing_folders(folder: Path) -> list[Path]:
    """Return the folders that are made with ``folder``, the innermost first; none if it exists."""
    return list(takewhile(lambda path: not path.exists(), (folder, *folder.absolute().parents)))


@contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """If the block raises, remove ``folder`` and its parents that the block has made, unless they have content."""
    new = missing_folders(folder)
    try:
        yield
    except BaseException:
        for path in new:
            with suppress(OSError):
                path.rmdir()
        raise


@contextmanager
def file_errors(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn every ``OSError`` of work on ``path`` into one of our errors.

    Args:
        path: The file or folder.
        needed: Bytes to be written, if known.
    """
    try:
        yield
    except OSError as error:
        known = machine_error(error, path, needed)
        if known is not None:
            raise known from error
        where = _where(error, path)
        if isinstance(error, FileNotFoundError):
            raise NotFound(f"{path}: there is no such file") from error
        if isinstance(error, IsADirectoryError):
            raise InputError(f"{where}: this is a folder, not a file") from error
        if isinstance(error, NotADirectoryError | FileExistsError):
            raise InputError(f"{where}: there is a file where a folder is needed") from error
        raise WorkError(f"{where}: {error.strerror or error}") from error


@contextmanager
def machine_errors(folder: Path, work: Path | None = None) -> Iterator[None]:
    """Turn an ``OSError`` of the block into one of our errors if the machine is its cause; let other errors pass.

    Args:
        folder: Folder that the block writes in; the error names it if the system names no file.
        work: Temporary folder in ``folder`` that the block fills. If the disk is full, the error has the size of this
            folder, not its name.
    """
    try:
        yield
    except Exception as raised:
        error = system_error(raised)
        if error is None or error.errno == errno.ENOMEM:
            raise  # The caller knows which setting to lower.
        if error.errno == errno.ENOSPC and not error.filename and not _is_full(folder, _LARGEST_FILE):
            raise  # Another disk is full.
        written = None
        if work is not None:
            written = _bytes_below(work)
            if error.filename and Path(os.fsdecode(error.filename)).is_relative_to(work):
                error.filename = str(folder)
        known = machine_error(error, folder, written=written)
        if known is None:
            raise
        raise known from raised


def known_error(error: Exception) -> KubeyoloError | None:
    """Return the error for a limit of the machine, or for input that is nested too deep; None for any other error."""
    if isinstance(error, RecursionError):
        return InputError("the input is nested too deep: lists in lists, or objects in objects; correct the file")
    system = system_error(error)
    return machine_error(system) if system else None


def system_error(error: Exception) -> OSError | None:
    """Return an error as an ``OSError``, even if a native library reports only its text; None for other errors."""
    if isinstance(error, OSError):
        return error
    if isinstance(error, KubeyoloError):
        return None  # Its message is complete.
    if is_lack_of_memory(f"{type(error).__name__}: {error}"):
        return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    number = _RUST_NUMBER.search(str(error))
    if number:
        return OSError(int(number[1]), os.strerror(int(number[1])))
    if os.strerror(errno.ENOSPC) in str(error):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return None


def machine_error(
    error: OSError, path: Path | None = None, needed: int | None = None, written: int | None = None
) -> KubeyoloError | None:
    """Return the error for a lack of space or permission, or for a limit; None for any other error.

    Args:
        error: Error of the system.
        path: File or folder of the work, for errors without a path.
        needed: Bytes to be written, if known.
        written: Bytes that were written before the disk was full, if known.
    """
    number = error.errno
    if number not in _MACHINE or (path is None and not error.filename and number not in _FULL | _LIMITS):
        return None
    where = _where(error, path)
    if number in _NO_PERMISSION:
        return InputError(f"{where}: no permission; {_other_folder(where)}, or change its owner")
    if number == errno.EROFS:
        return InputError(f"{where}: the file system is read-only; {_other_folder(where)}")
    if number == errno.ENAMETOOLONG:
        return InputError(f"{where[:_MOST_CHARACTERS]}…: the name is longer than the file system allows; shorten it")
    if number == errno.ELOOP:
        return InputError(f"{where}: links that lead to each other; remove one of them")
    if number in _FULL:
        return WorkError(_full_line(error, where, needed, written))
    if number in _LIMITS:
        return WorkError(_limit_line(error, where))
    return WorkError(f"{where}: {os.strerror(number)}: the disk, or the network it is on, fails; see the system's log")


def missing_current_folder(error: OSError) -> InputError | None:
    """Return the error for a current folder that was removed, if this is the cause of the error."""
    if not isinstance(error, FileNotFoundError) or error.filename:
        return None
    with suppress(OSError):
        os.getcwd()
        return None
    return InputError(
        "the current folder no longer exists; change to a different folder and run the same command again"
    )


def available_bytes(path: Path) -> int | None:
    """Return how many bytes can still be written at a path, which need not exist; None if unknown."""
    for folder in (path, *path.absolute().parents):
        with suppress(OSError):
            status = os.statvfs(folder)
            return status.f_bavail * status.f_frsize
    return None


def _bytes_below(folder: Path) -> int:
    with suppress(OSError):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return 0


def _is_full(folder: Path, limit: int = _NEXT_TO_NOTHING) -> bool:
    with suppress(OSError):
        status = os.statvfs(folder)
        return status.f_bavail * status.f_frsize < limit or (status.f_files > 0 and status.f_favail == 0)
    return False


def _where(error: OSError, path: Path | None) -> str:
    """Return the path of an error, without the temporary names of files that are being written."""
    named = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) and error.filename else ""
    if named.endswith(PART_SUFFIX) or not named:
        named = str(path) if path is not None else str(Path(named).parent) if named else ""
    path = Path(named)
    for part in [path, *path.parents]:
        if part.name.endswith(PART_SUFFIX):
            path = part.parent
    return str(path) if named else ""


def _other_folder(where: str) -> str:
    """Return advice on how to use a different folder."""
    path = Path(where).absolute()
    if path.is_relative_to(cache_root().absolute()):
        return f"set {CACHE} to a folder that can be written"
    if path == _temporary_folder():
        return "set TMPDIR to a folder that can be written"
    return "choose a different folder"


def _temporary_folder() -> Path:
    try:
        return Path(tempfile.gettempdir()).absolute()
    except OSError:
        return Path(os.environ.get("TMPDIR") or "/tmp").absolute()


def _full_line(error: OSError, where: str, needed: int | None, written: int | None) -> str:
    if not where:
        full = [str(place) for place in (_temporary_folder(), cache_root(), Path()) if _is_full(_existing(place))]
        named = f" ({', '.join(full)})" if full else ""
        return f"a disk is full{named}; free some space ('df -h' shows where) and run the same command again"
    place = _existing(Path(where))
    available = available_bytes(place)
    if error.errno == errno.EDQUOT:
        what = "your quota of the disk is used up"
    elif available is not None and available >= max(_BLOCKS, needed or 0) and _is_full(place, 0):
        what = "the disk has no free inodes for more files ('df -i' shows their number)"
    else:
        what = "the disk is full"
    figures = [] if needed is None else [f"{size_text(needed)} needed"]
    if available is not None and error.errno != errno.EDQUOT:
        if written is not None:
            # The written files are removed, so their space is free again.
            available += written
            figures = [f"more than {size_text(available)} needed"]
        figures += [f"{size_text(available)} free"]
    known = f" ({', '.join(figures)})" if figures else ""
    return f"{where}: {what}{known}; free some space, or {_other_folder(where)}, and run the same command again"


def _existing(path: Path) -> Path:
    return next((place for place in (path, *path.absolute().parents) if place.exists()), Path("/"))


def _limit_line(error: OSError, where: str) -> str:
    if error.errno == errno.ENFILE:
        remedy = "stop other programs and run the same command again"
        return f"{where or 'the system'}: too many files are open on this machine; {remedy}"
    if error.errno == errno.EMFILE:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        remedy = "raise the limit ('ulimit -n') and run the same command again"
        return f"{where or 'files'}: more than {limit} open files; {remedy}"
    if error.errno == errno.ENOMEM:
        return _memory_line()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit == resource.RLIM_INFINITY:
        return f"{where or 'a file'}: too large for this file system; choose a different folder"
    size = f"{limit} bytes" if limit < _NEXT_TO_NOTHING else size_text(limit)
    remedy = "raise the limit ('ulimit -f') and run the same command again"
    return f"{where or 'a file'}: larger than the limit for a file, {size}; {remedy}"


def _memory_line() -> str:
    """Return the line for a lack of memory, with the limit of the address space if there is a limit."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    addresses = (
        "" if limit == resource.RLIM_INFINITY else f" (address space limited to {size_text(limit)} by 'ulimit -v')"
    )
    settings = dict.fromkeys(("the batch", "the image size", "data.workers", "data.cache_limit_mb"))
    return f"out of memory{addresses}: allow more memory, or {lower(settings)}"
