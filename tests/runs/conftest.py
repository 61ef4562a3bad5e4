"""The real pipeline with steps that take no time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kubeyolo.runs.bind import pipeline_text
from kubeyolo.runs.local import RunOutcome, run_local
from kubeyolo.runs.parameters import RunParameters
from tests.runs.kubeflow_double import KubeflowDouble

FAKE = Path(__file__).parent / "fake"


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

    def failed(self, step: str, message: str) -> None:
        self.said.append(f"failed {step}: {message}")


class FakeRuns:
    """Runs of the real graph whose steps do nothing."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs = folder / "runs"
        self.store = folder / "store"
        self.store.mkdir()
        self.pipeline = pipeline_text().replace("kubeyolo.steps.component", "kubeyolo_fake_steps")
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("PYTHONPATH", str(FAKE))

    def parameters(
        self, name: str = "fake-run", fingerprint: str = "1", **overrides: dict[str, object]
    ) -> RunParameters:
        return RunParameters(
            name=name,
            model="yolov5n-r7",
            data="/data",
            store=str(self.store),
            fingerprint=fingerprint,
            code_digest="c",
            overrides=overrides,
        )

    def run(self, parameters: RunParameters | None = None) -> tuple[RunOutcome, Watched]:
        watched = Watched()
        return run_local(parameters or self.parameters(), self.runs, watched, self.pipeline), watched

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


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeflowDouble]:
    double = KubeflowDouble()
    monkeypatch.setenv("KUBEYOLO_KFP_HOST", double.host)
    # The pods of its runs are nowhere: the cluster of whoever runs the tests is not asked for them.
    monkeypatch.setenv("KUBECONFIG", "/nowhere/kubeconfig")
    yield double
    double.stop()
