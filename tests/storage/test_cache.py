"""The folder of copies and logs, on machines with and without a home."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from kubeyolo.errors import InputError
from kubeyolo.storage.cache import cache_folder, cache_root, expand_homes, set_matplotlib_folder


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Take the home away; return the temporary folder."""
    for name in ("KUBEYOLO_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"):
        # Set first, so that what is set meanwhile is taken away again.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "absent"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_variable_names_the_folder(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(homeless / "caches"))
    assert cache_folder("locks") == homeless / "caches" / "kubeyolo" / "locks"
    monkeypatch.setenv("KUBEYOLO_CACHE", "elsewhere")
    assert cache_folder("locks") == Path("elsewhere/locks")
    monkeypatch.setenv("KUBEYOLO_CACHE", "")
    assert cache_root() == homeless / "caches" / "kubeyolo"


def test_a_home_has_it_below_its_cache(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = homeless / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    assert cache_root() == home / ".cache" / "kubeyolo"
    set_matplotlib_folder()
    assert "MPLCONFIGDIR" not in os.environ and list(home.iterdir()) == []


def test_without_a_home_it_is_private_and_said_once(homeless: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_matplotlib_folder()
    folder = cache_root()
    assert folder == homeless / f"kubeyolo-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert os.environ["KUBEYOLO_CACHE"] == str(folder) and os.environ["MPLCONFIGDIR"] == str(folder / "matplotlib")
    (line,) = capsys.readouterr().err.splitlines()
    assert str(folder) in line and "KUBEYOLO_CACHE" in line


@pytest.mark.parametrize("planted", ["link", "open", "file"])
def test_a_folder_that_others_could_write_is_not_taken(homeless: Path, planted: str) -> None:
    usual = homeless / f"kubeyolo-{os.getuid()}"
    if planted == "link":
        (homeless / "theirs").mkdir()
        usual.symlink_to("theirs")
    elif planted == "open":
        usual.mkdir()
        usual.chmod(0o777)
    else:
        usual.write_bytes(b"")
    folder = cache_root()
    assert folder != usual and folder.parent == homeless
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert cache_root() == folder


def test_a_home_that_cannot_be_written_is_none(
    homeless: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (homeless / "home" / ".cache").mkdir(parents=True)
    (homeless / "home" / ".cache" / "kubeyolo").write_bytes(b"")
    monkeypatch.setenv("HOME", str(homeless / "home"))
    assert cache_root() == homeless / f"kubeyolo-{os.getuid()}"
    assert "home/.cache/kubeyolo cannot be written" in capsys.readouterr().err


def test_a_tilde_in_a_variable_is_the_home(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(homeless))
    monkeypatch.setenv("XDG_CACHE_HOME", "~/caches")
    assert cache_folder("locks") == homeless / "caches" / "kubeyolo" / "locks"
    monkeypatch.setenv("KUBEYOLO_CACHE", "~/own")
    assert cache_folder("locks") == homeless / "own" / "locks"
    monkeypatch.setenv("KUBEYOLO_RUNS", "~/runs")
    monkeypatch.setenv("SSL_CERT_FILE", "~/ca.pem")
    monkeypatch.setenv("XDG_CONFIG_HOME", "a~/b")
    expand_homes()
    names = ("XDG_CACHE_HOME", "KUBEYOLO_CACHE", "KUBEYOLO_RUNS", "SSL_CERT_FILE", "XDG_CONFIG_HOME")
    expanded = [str(homeless / name) for name in ("caches", "own", "runs", "ca.pem")]
    assert [os.environ[name] for name in names] == [*expanded, "a~/b"]


@pytest.mark.parametrize("name", ["KUBEYOLO_CACHE", "KUBEYOLO_RUNS"])
def test_the_home_of_a_user_who_has_none_is_refused(homeless: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "~no-such-user/x")
    with pytest.raises(InputError, match=f"^{name} is ~no-such-user/x: there is no home folder for '~no-such-user'"):
        expand_homes()


def test_a_tilde_in_the_cache_needs_a_home_in_a_step_too(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEYOLO_CACHE", "~no-such-user/x")
    with pytest.raises(
        InputError, match="^KUBEYOLO_CACHE is ~no-such-user/x: there is no home folder for '~no-such-us"
    ):
        cache_root()
