"""The real pipeline with steps that take no time."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.runs.local import LocalRun, RunOutcome, run_local

FAKE, ROOT = Path(__file__).parent / "fake", Path(__file__).parents[2]


@dataclass
class Watched:
    """Notes what a run tells its observer."""

    said: list[str] = field(default_factory=list)

    def started(self, step: str) -> None:
        self.said.append(f"started {step}")

    def cached(self, step: str) -> None:
        self.said.append(f"cached {step}")

    def line(self, step: str, text: str) -> None:
        self.said.append(f"line {step}: {text}")

    def finished(self, step: str, seconds: float) -> None:
        self.said.append(f"finished {step}")

    def failed(self, step: str, message: str, interrupted: bool = False) -> None:
        self.said.append(f"{'interrupted' if interrupted else 'failed'} {step}: {message}")


class FakeRuns:
    """Runs of the real graph whose steps do nothing."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs = folder / "runs"
        self.store = folder / "store"
        self.store.mkdir(exist_ok=True)
        text = CompiledPipeline.named().text.replace("kubeyolo.steps.component", "kubeyolo_fake_steps")
        self.pipeline = CompiledPipeline(text)
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(FAKE), str(FAKE.parents[2]))))

    def described(self, name: str = "fake-run", data: str = "/data", **form: str) -> LocalRun:
        """Return a run of the fake steps with these fields of its form."""
        store = str(self.store)
        return LocalRun(
            name=name,
            model="yolov5n-r7",
            store=store,
            form={"data": data, "store": store, **form},
            pipeline=self.pipeline,
            environment="packages",
        )

    def run(self, run: LocalRun | None = None) -> tuple[RunOutcome, Watched]:
        watched = Watched()
        return run_local(run or self.described(), self.runs, watched), watched

    def let(self, step: str, end: str) -> None:
        """Let a step end otherwise; an empty name lets all end well."""
        self._monkeypatch.setenv("FAKE_STEP", step)
        self._monkeypatch.setenv("FAKE_END", end)

    def calls(self) -> list[str]:
        """Return the steps that were run since the last look."""
        log = self.store / "calls.log"
        if not log.exists():
            return []
        lines = log.read_text().split()
        log.unlink()
        return lines


@pytest.fixture
def fake_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRuns:
    return FakeRuns(tmp_path, monkeypatch)


@dataclass(frozen=True)
class FirstRun:
    """A successful run of the fake steps, which is made once for all tests that start after such a run.

    Attributes:
        folder: The folder of its runs and its store.
        copy: A copy of this folder, as the run left it.
        outcome: What it returned.
        said: What its observer noted.
        calls: The steps that it ran.
    """

    folder: Path
    copy: Path
    outcome: RunOutcome
    said: list[str]
    calls: list[str]


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> FirstRun:
    base = tmp_path_factory.mktemp("first-run")
    folder = base / "run"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        runs = FakeRuns(folder, patch)
        outcome, watched = runs.run()
        calls = runs.calls()
    copy = shutil.copytree(folder, base / "copy", symlinks=True)
    return FirstRun(folder, copy, outcome, watched.said, calls)


@pytest.fixture
def later_runs(first_run: FirstRun, monkeypatch: pytest.MonkeyPatch) -> FakeRuns:
    """Runs in the folder of the first run, which is restored for each test: no earlier test has changed it."""
    shutil.rmtree(first_run.folder)
    shutil.copytree(first_run.copy, first_run.folder, symlinks=True)
    return FakeRuns(first_run.folder, monkeypatch)
