"""Tests that stray fail their session: connections to other machines, and files outside of the folders of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.strays.sitecustomize import is_loopback

ROOT = Path(__file__).parents[2]

STRAYS = """
import pathlib, subprocess, sys
import pytest

CONNECT = "import socket; socket.socket(type=socket.SOCK_DGRAM).connect_ex(('192.0.2.7', 9))"
OUTSIDE = pathlib.Path({outside!r})

def test_good(tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "a").rename(tmp_path / "b")

def test_python_child():
    subprocess.run([sys.executable, "-c", CONNECT], check=True)

def test_other_program():
    subprocess.run(["bash", "-c", "exec 3<>/dev/udp/192.0.2.8/9 || true"], stderr=subprocess.DEVNULL)

def test_file():
    (OUTSIDE / "file").write_text("x")
    subprocess.run([sys.executable, "-c", "import os, sys; os.mkdir(sys.argv[1])", OUTSIDE / "folder"], check=True)

@pytest.mark.strays("on purpose")
def test_on_purpose():
    subprocess.run([sys.executable, "-c", CONNECT], check=True)
    (OUTSIDE / "expected").write_text("x")
"""


def session(tmp_path: Path, name: str) -> tuple[int, list[str]]:
    """Run tests of a file in a session of their own, and return its exit code and its findings."""
    folder, outside = tmp_path / "session", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "conftest.py").write_text('pytest_plugins = ["tests.strays.plugin"]')
    (folder / "test_it.py").write_text(STRAYS.format(outside=str(outside)))
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "PYTEST_CURRENT_TEST")}
    # The folder of this test is one of the folders of its session, and must not be one of the inner session.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "own")]
    command += ["--rootdir", str(folder), "-o", "markers=", "-k", name, str(folder)]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    lines = [line for line in ended.stdout.splitlines() if line.startswith("STRAYED")]
    return ended.returncode, [line.replace(str(tmp_path), "") for line in lines]


def can_have_own_network() -> bool:
    """Tell whether processes here may move into a network namespace: root in an ordinary container may not."""
    program = "import sys; from tests.strays.plugin import has_own_network; sys.exit(not has_own_network())"
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_a_session_that_strays_fails_and_names_the_tests(tmp_path: Path) -> None:
    code, findings = session(tmp_path, "good or python or file or other")
    assert code == 1
    text = "\n".join(findings)
    assert "test_it.py::test_python_child (call): connected to ('192.0.2.7', 9)" in text
    assert "test_it.py::test_file (call): wrote /outside/file" in text
    assert "test_it.py::test_file (call): os.mkdir /outside/folder" in text
    assert "test_good" not in text
    if can_have_own_network():
        assert "test_it.py::test_other_program: 1 attempts to leave the machine with IPv4" in text


def test_a_session_that_stays_or_strays_on_purpose_passes(tmp_path: Path) -> None:
    assert session(tmp_path, "good or on_purpose") == (0, [])


@pytest.mark.parametrize(
    ("address", "is_here"),
    [
        (("127.0.0.1", 80), True),
        (("::1", 80, 0, 0), True),
        (("localhost", 80), True),
        ("/run/socket", True),
        (("10.0.0.1", 80), False),
        (("2001:db8::1", 80, 0, 0), False),
    ],
)
def test_addresses_of_this_machine_are_told_from_others(address: object, is_here: bool) -> None:
    assert is_loopback(address) is is_here
