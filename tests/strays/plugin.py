"""A session fails if a test, or a program that it starts, connects to another machine or writes outside of its folders.

Connections: each process that runs tests has a network namespace of its own, in which only loopback is up. An attempt
to leave the machine fails, and the kernel counts it, whatever program made it. This needs root with CAP_SYS_ADMIN,
which ordinary containers do not have; otherwise only Python processes are watched. Files: an audit hook in this process
and in the Python processes that it starts; in CI also a comparison of the home folder
before and after the session.
"""

from __future__ import annotations

import ctypes
import fcntl
import getpass
import os
import shutil
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.strays import sitecustomize

ROOT = Path(__file__).resolve().parents[2]
HOOK = Path(sitecustomize.__file__).parent

OUTSIDE = (ROOT / "tests" / "cluster", ROOT / "tests" / "images")
"""Folders of tests that need the network."""

CACHES = (".hypothesis", ".import_linter_cache", ".mypy_cache", ".pytest_cache", ".ruff_cache", "build")
"""Folders of the repository that tools write to."""

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_UP, _RUNNING = 0x1, 0x40


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "strays(reason): connects to another machine, or writes elsewhere, on purpose")
    given = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    if any(path.is_relative_to(folder) for path in given for folder in OUTSIDE):
        return
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(StraysOfSession(config))
    sitecustomize.watch(tuple(os.environ[sitecustomize.FOLDERS].split(os.pathsep)))
    # The process that starts workers runs no tests.
    runs_tests = hasattr(config, "workerinput") or not config.getoption("numprocesses", None)
    if runs_tests and has_own_network():
        config.pluginmanager.register(ConnectionsOfTests())


def has_own_network() -> bool:
    """Move this process into a network of its own, with loopback alone; tell whether this was possible."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as before:
        if libc.unshare(_CLONE_NEWNET) != 0:
            return False
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
                fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _UP | _RUNNING))
        except OSError:
            # It may leave its network, but not set up another one.
            libc.setns(before.fileno(), _CLONE_NEWNET)
            return False
    return True


def attempts() -> dict[str, int]:
    """Return how often a packet had no route in this network, with IPv4 and with IPv6."""
    found = {"IPv4": 0, "IPv6": 0}
    names, values = (line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()[:2])
    found["IPv4"] = int(dict(zip(names, values, strict=True))["OutNoRoutes"])
    # A kernel without IPv6 does not have this file.
    with suppress(FileNotFoundError), open("/proc/thread-self/net/snmp6") as lines:
        found["IPv6"] = sum(int(line.split()[1]) for line in lines if line.startswith("Ip6OutNoRoutes"))
    return found


class ConnectionsOfTests:
    """Reports the tests during which something tried to leave the machine."""

    def __init__(self) -> None:
        self.seen = attempts()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        is_expected = item.get_closest_marker("strays") is not None
        if is_expected:
            os.environ[sitecustomize.EXPECTED] = "1"
        try:
            return (yield)
        finally:
            os.environ.pop(sitecustomize.EXPECTED, None)
            now = attempts()
            for family, count in now.items():
                # Chromium asks whether there is a route for IPv6, and sends nothing.
                is_probe = family == "IPv6" and "browser" in getattr(item, "fixturenames", ())
                if count > self.seen[family] and not is_expected and not is_probe:
                    os.environ["PYTEST_CURRENT_TEST"] = item.nodeid
                    sitecustomize.report(f"{count - self.seen[family]} attempts to leave the machine with {family}")
                    del os.environ["PYTEST_CURRENT_TEST"]
            self.seen = now


class StraysOfSession:
    """Prepares the watch of all processes, and fails the session if one of them has strayed."""

    def __init__(self, config: pytest.Config) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kubeyolo-strays-"))
        self.findings: list[str] = []
        os.environ[sitecustomize.REPORT] = str(self.folder / "report")
        os.environ[sitecustomize.FOLDERS] = os.pathsep.join(f"{folder}/" for folder in self._folders(config))
        paths = [str(HOOK), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        # In a new home folder matplotlib and Chromium would make this folder during the session.
        with suppress(OSError):
            (Path.home() / ".config" / "matplotlib").mkdir(parents=True, exist_ok=True)
        self._before = self._listing()

    def _folders(self, config: pytest.Config) -> list[Path]:
        """Return the folders in which tests, and the programs that they start, may write."""
        temporary = Path(tempfile.gettempdir())
        own = config.getoption("basetemp") or temporary / f"pytest-of-{getpass.getuser()}"
        caches = [
            Path.home() / ".cache",
            Path.home() / ".config" / "matplotlib",
            *(ROOT / name for name in CACHES),
            Path(sys.prefix),
        ]
        caches += [Path(os.environ["KUBEYOLO_CACHE"])] if os.environ.get("KUBEYOLO_CACHE") else []
        # Libraries make sockets and folders of their own below the system's folder for temporary files.
        return [Path(own).resolve(), temporary.resolve(), self.folder, *caches, Path("/dev"), Path("/proc")]

    def _listing(self) -> set[Path]:
        """Return what is in the home folder; only in CI nobody else writes there."""
        return {*Path.home().iterdir()} if os.environ.get("CI") else set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        report = self.folder / "report"
        self.findings = sorted({*report.read_text().splitlines()}) if report.exists() else []
        own = {Path.home() / ".cache", Path.home() / ".config"}
        self.findings += [f"the session left {path}" for path in sorted(self._listing() - self._before - own)]
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.findings and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self.findings:
            terminalreporter.write_line(f"STRAYED (tests/strays): {line}", red=True)
