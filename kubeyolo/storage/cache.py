"""The folder on this machine for copies of stored files, checksums and logs; paths in environment variables."""

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
# Variables that are read here, or by libraries that do not expand "~".
_PATHS = (
    *(CACHE, RUNS, _MATPLOTLIB, "TMPDIR"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
_PRIVATE = 0o700


def cache_folder(name: str) -> Path:
    """Return the folder ``name`` for copies, checksums or logs; it may not exist yet."""
    return cache_root() / name


def cache_root() -> Path:
    """Return ``$KUBEYOLO_CACHE``, by default ``$XDG_CACHE_HOME/kubeyolo`` or ``~/.cache/kubeyolo``.

    Without a home folder that can be written, make a private folder below the temporary folder, print its name once,
    and set it in the environment for this process and its children.

    Raises:
        InputError: The variable starts with ``~user``, and this user has no home folder.
    """
    given = os.environ.get(CACHE)
    if given:
        return Path(_expanded(CACHE, given))
    usual = _usual_root()
    if usual is not None and _can_be_written(usual):
        return usual
    folder = _private_folder()
    if folder is None:
        # No folder can be written; an error names this folder when something is written to it.
        return usual or Path(os.environ.get("TMPDIR") or "/tmp") / _private_name()
    os.environ[CACHE] = str(folder)
    why = f"{usual} cannot be written" if usual is not None else "there is no home folder"
    # Standard error is None if its descriptor is closed.
    if sys.stderr is not None:
        print(f"{why}: copies and logs go to {folder}; set {CACHE} to use a different folder", file=sys.stderr)
    return folder


def expand_homes() -> None:
    """Expand ``~`` in every variable that names a path: cron and service managers do not expand it.

    Raises:
        InputError: A variable of kubeyolo starts with ``~user``, and this user has no home folder.
    """
    for name in _PATHS:
        value = os.environ.get(name, "")
        if value.startswith("~"):
            os.environ[name] = _expanded(name, value)


def set_matplotlib_folder() -> None:
    """Give matplotlib a different folder if its usual folder cannot be written, so that it does not warn."""
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
    """Return the folder below the user's home folder; None if the user has no home folder."""
    given = os.path.expanduser(os.environ.get("XDG_CACHE_HOME", ""))
    if os.path.isabs(given):
        return Path(given) / "kubeyolo"
    home = _home()
    return home / ".cache" / "kubeyolo" if home else None


def _home() -> Path | None:
    # For a user id without a name it is "~" if HOME is not set, and "/" in many containers.
    home = Path(os.path.expanduser("~"))
    return home if home.is_absolute() and os.path.isdir(home) else None


def _can_be_written(folder: Path) -> bool:
    """Tell whether a folder and its subfolders can be written, or, if there is no folder, whether it can be made."""
    with suppress(OSError):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        below = [path for path in folder.iterdir() if path.is_dir()] if existing == folder else []
        return all(path.is_dir() and os.access(path, os.W_OK | os.X_OK) for path in (existing, *below))
    return False


def _private_name() -> str:
    return f"kubeyolo-{os.getuid()}"


def _private_folder() -> Path | None:
    """Return a folder below the temporary folder that no other user can write; None if no such folder can be made."""
    try:
        folder = Path(tempfile.gettempdir()) / _private_name()
        with suppress(FileExistsError):
            folder.mkdir(_PRIVATE)
        status = folder.lstat()
        # Another user may have made this folder, or a link to a folder of their own, to read the files.
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077:
            return folder
        return Path(tempfile.mkdtemp(prefix=f"{_private_name()}-"))
    except OSError:
        return None
