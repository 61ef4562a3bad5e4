"""Runs of the compiled pipeline that are killed, interrupted, or started twice at the same time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.errors import InputError

STEPS = CompiledPipeline.named().tasks

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import Watched
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.runs.local import LocalRun, run_local
run = LocalRun(
    name="fake-run",
    model="yolov5n-r7",
    store={store!r},
    form={{"data": "/data", "store": {store!r}}},
    pipeline=CompiledPipeline(Path({pipeline!r}).read_text()),
    environment="packages",
)
run_local(run, Path({runs!r}), Watched())
"""


def started_run(fake_runs: Any, tmp_path: Path, how: str = "sleep", **streams: Any) -> subprocess.Popen[str]:
    """Start a run in a process of its own whose training sleeps, and return when it does."""
    fake_runs.let("train", how)
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text(fake_runs.pipeline.text)
    texts = {"tests": str(Path(__file__).parent), "store": str(fake_runs.store), "runs": str(fake_runs.runs)}
    code = SCRIPT.format(pipeline=str(pipeline), **texts)
    given = {"stderr": subprocess.PIPE, "start_new_session": True, **streams}
    process = subprocess.Popen([sys.executable, "-c", code], text=True, **given)
    log = fake_runs.store / "calls.log"
    deadline = time.monotonic() + 120
    while not (log.exists() and "train" in log.read_text().split()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    return process


def step_lives(fake_runs: Any) -> bool:
    """Tell whether a process of a step of these runs lives."""
    marker = str(fake_runs.runs)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker in path.read_text() and "executor_main" in path.read_text():
                return True
        except OSError:
            continue
    return False


def wait_until_gone(fake_runs: Any) -> None:
    deadline = time.monotonic() + 60
    while step_lives(fake_runs):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_an_identical_run_at_the_same_time_is_refused(fake_runs: Any, tmp_path: Path) -> None:
    process = started_run(fake_runs, tmp_path)
    try:
        with pytest.raises(InputError, match=rf"fake-run: this run is already running here \(process {process.pid}\)"):
            fake_runs.run()
    finally:
        process.kill()
        process.communicate()
    wait_until_gone(fake_runs)


def test_a_killed_run_takes_its_step_along_and_can_be_continued(fake_runs: Any, tmp_path: Path) -> None:
    process = started_run(fake_runs, tmp_path)
    process.kill()
    process.communicate()
    wait_until_gone(fake_runs)
    fake_runs.calls()
    fake_runs.let("", "")
    outcome, _ = fake_runs.run()
    assert sorted(fake_runs.calls()) == sorted(set(STEPS) - {"validate_dataset", "pretrain_backbone"})
    assert outcome.summary["model"] == "yolov5n-r7"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a TMPDIR of the run's own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_ends_its_step_first(
    fake_runs: Any, tmp_path: Path, temporary: Path, number: signal.Signals
) -> None:
    process = started_run(fake_runs, tmp_path)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert not step_lives(fake_runs)
    assert errors.splitlines()[0].startswith("stopping: waiting for the running step")
    assert "KeyboardInterrupt" in errors
    assert list(temporary.iterdir()) == []
    assert "interrupted" in (fake_runs.runs / "fake-run" / "index.html").read_text()


def test_no_step_begins_once_the_run_was_interrupted(fake_runs: Any, tmp_path: Path) -> None:
    process = started_run(fake_runs, tmp_path, "finish")
    time.sleep(1)
    os.kill(process.pid, signal.SIGHUP)
    _, errors = process.communicate(timeout=60)
    assert errors.rstrip().endswith("KeyboardInterrupt: interrupted; run the same command again to continue")
    assert fake_runs.calls()[-1] == "train"


def test_a_second_ctrl_c_ends_a_step_that_hears_no_signal(fake_runs: Any, tmp_path: Path, temporary: Path) -> None:
    process = started_run(fake_runs, tmp_path, "compile")
    for _ in range(2):
        time.sleep(0.6)
        os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=8)
    assert not step_lives(fake_runs)
    assert errors.rstrip().endswith("KeyboardInterrupt: interrupted; run the same command again to continue")
    assert list(temporary.iterdir()) == []
