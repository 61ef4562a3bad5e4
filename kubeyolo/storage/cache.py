"""Where copies of stored things are kept on this machine."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from kubeyolo.errors import InputError

CACHE = "KUBEYOLO_CACHE"
"""Environment variable that names the folder of copies, checksums and logs."""

RUNS = "KUBEYOLO_RUNS"
"""Environment variable that names the folder of the runs on this machine."""

_MATPLOTLIB = "MPLCONFIGDIR"
# Read here or by the libraries, which take "~" for the name of a folder.
_PATHS = (
    *(CACHE, RUNS, _MATPLOTLIB, "TMPDIR"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
_PRIVATE = 0o700


def cache_folder(name: str) -> Path:
    """Return the folder of this name below that of copies, checksums and logs; it may not exist yet."""
    return cache_root() / name


def cache_root() -> Path:
    """Return ``$KUBEYOLO_CACHE``, by default ``$XDG_CACHE_HOME/kubeyolo`` or ``~/.cache/kubeyolo``.

    Where there is no home folder, or none that can be written, it is a private folder below the temporary one, which
    is made, said once, and named in the environment for this process and those it starts.

    Raises:
        InputError: The variable begins with the home of a user who has none.
    """
    given = os.environ.get(CACHE)
    if given:
        return Path(_expanded(CACHE, given))
    usual = _usual_root()
    if usual is not None and _can_be_written(usual):
        return usual
    folder = _private_folder()
    if folder is None:
        # There is no place at all: who writes to this one says so.
        return usual or Path(os.environ.get("TMPDIR") or "/tmp") / _private_name()
    os.environ[CACHE] = str(folder)
    why = f"{usual} cannot be written" if usual is not None else "there is no home folder"
    # Standard error is None where its descriptor is closed.
    if sys.stderr is not None:
        print(f"{why}: copies and logs go to {folder}; {CACHE} names another folder", file=sys.stderr)
    return folder


def expand_homes() -> None:
    """Write the home for ``~`` in every variable that names a path: who starts commands by a table expands none.

    Raises:
        InputError: A variable of ours begins with the home of a user who has none.
    """
    for name in _PATHS:
        value = os.environ.get(name, "")
        if value.startswith("~"):
            os.environ[name] = _expanded(name, value)


def settle_folders() -> None:
    """Choose a folder for matplotlib, for this process and those it starts, where it would find none: it warns then."""
    if _MATPLOTLIB in os.environ:
        return
    given, home = os.environ.get("XDG_CONFIG_HOME", ""), _home()
    usual = Path(given) if os.path.isabs(given) else home / ".config" if home else None
    if usual is None or not _can_be_written(usual / "matplotlib"):
        root = cache_root()
        folder = root if _can_be_written(root) else _private_folder()
        if folder is not None:
            os.environ[_MATPLOTLIB] = str(folder / "matplotlib")


def _expanded(name: str, value: str) -> str:
    path = os.path.expanduser(value)
    if path.startswith("~") and name in (CACHE, RUNS):
        home = Path(value).parts[0]
        raise InputError(f"{name} is {value}: there is no home folder for {home!r}; write the whole path, or ./{value}")
    return path


def _usual_root() -> Path | None:
    """Return the folder below the user's home; None where the user has none."""
    given = os.path.expanduser(os.environ.get("XDG_CACHE_HOME", ""))
    if os.path.isabs(given):
        return Path(given) / "kubeyolo"
    home = _home()
    return home / ".cache" / "kubeyolo" if home else None


def _home() -> Path | None:
    # Of a user whose id has no name it is "~" where HOME is not set, and "/" in many containers.
    home = Path(os.path.expanduser("~"))
    return home if home.is_absolute() and os.path.isdir(home) else None


def _can_be_written(folder: Path) -> bool:
    """Tell whether a folder, with what is in it, can be written, or be made."""
    with suppress(OSError):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        below = [path for path in folder.iterdir() if path.is_dir()] if existing == folder else []
        return all(path.is_dir() and os.access(path, os.W_OK | os.X_OK) for path in (existing, *below))
    return False


def _private_name() -> str:
    return f"kubeyolo-{os.getuid()}"


def _private_folder() -> Path | None:
    """Return a folder below the temporary one that nobody else can write; None where none can be made."""
    try:
        folder = Path(tempfile.gettempdir()) / _private_name()
        with suppress(FileExistsError):
            folder.mkdir(_PRIVATE)
        found = folder.lstat()
        # Another user may have made it, or a link to a folder of theirs, in the hope that it is used.
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return folder
        return Path(tempfile.mkdtemp(prefix=f"{_private_name()}-"))
    except OSError:
        return None
