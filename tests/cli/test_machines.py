"""Commands on machines as they are: without a home, on consoles that lack characters, with streams that are closed."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubeyolo.data.sample import generate_sample_dataset

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "kubeyolo.cli.app"]
NOBODY = 12345
"""An id that no user has."""

# To read everything, so that an interpreter in the folder of another user is found, and to write nothing there.
_READ_ALL = "-all,+dac_read_search"
_READER = [f"--{kind}={_READ_ALL}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]


def run(
    arguments: list[str], folder: Path, prefix: list[str] | None = None, /, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in an environment that has nothing but these variables."""
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [*(prefix or []), *COMMAND, *arguments], cwd=folder, env=environment, capture_output=True, timeout=120
    )


def as_nobody(folder: Path) -> tuple[list[str], int]:
    """Return how a program is run by a user without a name, and the id; where that is not allowed, by this user."""
    if os.getuid() == 0 and shutil.which("setpriv"):
        user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        for prefix in ([*user, *_READER], user):
            if run(["--version"], folder, prefix).returncode == 0:
                return prefix, NOBODY
    return [], os.getuid()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that any user may write, with a data set; those of pytest are private."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        path = Path(name)
        generate_sample_dataset(path / "shapes", train=2, val=1, image_size=(64, 64))
        for place in (path, *path.rglob("*")):
            place.chmod(0o777 if place.is_dir() else 0o644)
        yield path


@pytest.fixture
def cached(tmp_path: Path) -> dict[str, str]:
    return {"KUBEYOLO_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}


def test_a_user_without_a_name_and_a_home_validates_and_is_told_once_where_copies_go(folder: Path) -> None:
    prefix, user = as_nobody(folder)
    # A user who has a name has a home by it.
    homeless = {} if user == NOBODY else {"HOME": "/nonexistent"}
    variables = {"TMPDIR": str(folder), "LC_ALL": "C", "PYTHONIOENCODING": "ascii", **homeless}
    done = run(["validate", "shapes", "--store", "store"], folder, prefix, **variables)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.decode("ascii").splitlines()
    private = folder / f"kubeyolo-{user}"
    advice = "set KUBEYOLO_CACHE to use a different folder"
    assert line == f"there is no home folder: copies and logs go to {private}; {advice}"
    assert (private.stat().st_uid, stat.S_IMODE(private.stat().st_mode)) == (user, 0o700)
    assert re.search(rb"\|train_images +\| 2 ", done.stdout)
    refused = run(["validate", "absent", "--store", "store"], folder, prefix, **variables)
    said = refused.stderr.decode("ascii").splitlines()
    assert refused.returncode == 2 and said[0] == line and len(said) == 2
    assert said[1].startswith(f"error: {folder}/absent: no such folder")


def test_any_path_is_found_and_shown_whatever_the_locale(folder: Path, cached: dict[str, str]) -> None:
    place = folder / "été dir" / "データ [1]:x"
    place.parent.mkdir()
    (folder / "shapes").rename(place)
    # A locale that is not UTF-8, and a Python that was told not to take UTF-8 in its place.
    variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", **cached}
    done = run(["validate", str(place), "--store", "été dir/st"], folder, **variables)
    assert done.returncode == 0, done.stderr
    (stored,) = (place.parent / "st" / "datasets").iterdir()
    assert (stored / "dataset.json").is_file()
    refused = run(["validate", str(place / "absent")], folder, **variables)
    assert refused.returncode == 2
    assert rb"\u00e9t\u00e9 dir/\u30c7\u30fc\u30bf [1]:x/absent: no such folder" in refused.stderr


def test_a_tilde_in_the_environment_is_the_home(folder: Path) -> None:
    home = folder / "home"
    home.mkdir()
    places = {"KUBEYOLO_STORE": "~/st", "KUBEYOLO_CACHE": "~/ca", "XDG_CONFIG_HOME": "~/co", "TMPDIR": "~/t"}
    done = run(["validate", "shapes"], folder, HOME=str(home), **places)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in home.iterdir()} >= {"st", "co"} and not (folder / "~").exists()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_console_without_a_character_shows_another(folder: Path, cached: dict[str, str], encoding: str) -> None:
    done = run(["models", "list"], folder, PYTHONIOENCODING=encoding, **cached)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "yolov4-csp" in done.stdout.decode(encoding)
    assert ("–" if encoding == "cp1252" else " -|") in done.stdout.decode(encoding)


@pytest.mark.parametrize("how", ["--json", ""])
def test_output_that_goes_nowhere_is_failed_work(folder: Path, cached: dict[str, str], how: str) -> None:
    command = [*COMMAND, "models", "list", *how.split()]
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), **cached}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, cwd=folder, env=environment)
    assert done.returncode == 1
    assert done.stderr == b"error: standard output: No space left on device; text that was not printed is lost\n"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder, env=environment)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert errors == b"error: standard output: closed by the program that reads it; text that was not printed is lost\n"


def test_closed_streams_are_no_error(folder: Path, cached: dict[str, str]) -> None:
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), **cached}
    command = [*COMMAND, "validate", "shapes", "--store", "store", "--json"]
    closing = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
    assert subprocess.run(closing, cwd=folder, env=environment, timeout=120).returncode == 0
    assert len(list((folder / "store" / "datasets").iterdir())) == 1


def test_a_folder_that_was_removed_is_said_in_a_line(folder: Path, cached: dict[str, str]) -> None:
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), **cached}
    gone = ["sh", "-c", 'mkdir gone && cd gone && rmdir ../gone && exec "$@"', "sh", *COMMAND]
    done = subprocess.run([*gone, "run", "--sample"], cwd=folder, env=environment, capture_output=True, timeout=120)
    assert done.returncode == 2
    assert b"the current folder no longer exists; change to a different folder" in done.stderr
    assert done.stderr.count(b"\n") == 1
