"""Fixtures for all tests: where shared data and golden numbers are; in CI a skip without leave is an error."""

from __future__ import annotations

import fnmatch
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import kubeyolo  # noqa: F401  before any test imports kfp or onnx: it chooses protobuf's implementation
from kubeyolo.signing import TRUSTED_KEYS
from tests import golden

pytest_plugins = [
    "tests.strays.plugin",
    "tests.minio_server",
    "tests.browser",
    "tests.kubernetes_server",
    "tests.mlflow_server",
]

ROOT = Path(__file__).resolve().parent.parent

# An example that takes long says that the machine is busy, not that the code is wrong.
settings.register_profile("kubeyolo", settings(), deadline=None)
settings.load_profile("kubeyolo")


def shared_folder() -> Path:
    """Return the folder of shared test data, which may not exist."""
    return Path(os.environ.get("KUBEYOLO_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session", autouse=True)
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give this process and those that tests start a TMPDIR that goes with the session, whatever is killed."""
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("tmp"))
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(scope="session", autouse=True)
def signals_of_a_terminal() -> None:
    """Give this process and those that tests start the signals that nohup and background shells make them ignore."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def folders_of_the_machine() -> Iterator[None]:
    """Restore the variables that kubeyolo itself sets: without a home, and with --verify-key."""
    names = ("KUBEYOLO_CACHE", "MPLCONFIGDIR", TRUSTED_KEYS)
    before = {name: os.environ.get(name) for name in names}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture
def pynative() -> Iterator[None]:
    """Operator by operator, whatever mode an earlier test of the process has left."""
    import mindspore as ms

    before = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE, jit_syntax_level=ms.LAX)
    yield
    ms.set_context(mode=before, jit_syntax_level=ms.LAX)


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = shared_folder()
    if not folder.is_dir():
        pytest.skip("../shared is absent")
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    if golden.is_absent():
        pytest.skip("../shared is absent")
    return golden.golden_folder()


def allowed_skips() -> list[tuple[str, str]]:
    """Return (pattern of test id, pattern of reason) of tests/allowed_skips.txt."""
    lines = (ROOT / "tests" / "allowed_skips.txt").read_text().splitlines()
    pairs = [line.split("|", 1) for line in lines if line.strip() and not line.startswith("#")]
    return [(pattern.strip(), reason.strip()) for pattern, reason in pairs]


LONGEST = ("e2e", "training", "export", "models", "pipelines", "launch", "runs")
"""Rooms of the files that take longest."""

FIRST = ("test_backbone_pretraining.py",)
"""Files that train what other files use as well, which would wait for it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what others wait for and with the longest files, so that no worker is left alone with one of them."""
    places = {name: place for place, name in enumerate((*FIRST, *LONGEST))}
    last = len(places)
    items.sort(key=lambda item: min(places.get(item.path.name, last), places.get(item.path.parent.name, last)))


class SkipGuard:
    """Turns a green session into a failed one when a test was skipped without leave."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not any(
            fnmatch.fnmatch(report.nodeid, test) and fnmatch.fnmatch(reason, why) for test, why in allowed_skips()
        ):
            self.refused.append(f"{report.nodeid}: {reason}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.refused.append(f"{report.nodeid}: {report.longrepr}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.refused and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self.refused:
            terminalreporter.write_line(f"SKIP WITHOUT LEAVE (tests/allowed_skips.txt): {line}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipGuard())
