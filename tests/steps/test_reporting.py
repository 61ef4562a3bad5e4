"""What a step in a process of its own says and leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kubeyolo.errors import InputError, InterruptedWork, WorkError
from kubeyolo.events import Event, StepRecord, parse_event
from kubeyolo.runs.evaluation import evaluation_numbers
from kubeyolo.steps.record import read_record, write_record, write_report
from kubeyolo.steps.reporting import StepReporter, reported, scalars
from kubeyolo.storage.base import NotFound


class Metrics:
    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.logged: dict[str, float] = {}

    def log_metric(self, metric: str, value: float) -> None:
        self.logged[metric] = value


class Html:
    def __init__(self, path: Path) -> None:
        self.path = str(path)


def events_of(text: str) -> list[Event]:
    return [event for event in map(parse_event, text.splitlines()) if event is not None]


def test_a_step_says_that_it_started_and_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = f"file://{tmp_path}/out"
    metrics, report = Metrics(tmp_path / "a" / "metrics"), Html(tmp_path / "a" / "report")
    with reported("train") as reporter:
        reporter.write_to(output)
        html = write_report(output, "<p>seen</p>")
        record = write_record(output, "train", 2.5, {"bundle": "x"}, {"AP": 0.5, "onnx": {"AP": 0.25}, "n": None}, html)
        reporter.publish(record, metrics, report)
    started, finished = events_of(capsys.readouterr().out)
    assert (started.kind, finished.kind, finished.fields["record"]) == ("started", "finished", record)
    assert metrics.logged == {"AP": 0.5, "onnx_AP": 0.25}
    assert Path(report.path).read_text() == "<p>seen</p>"
    # Without a file kfp's local cache would take the step as not done.
    assert Path(metrics.path).exists()
    assert read_record(record) == StepRecord(
        step="train",
        seconds=2.5,
        outputs={"bundle": "x"},
        metrics={"AP": 0.5, "onnx": {"AP": 0.25}, "n": None},
        report=html,
    )


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("bad box 7"), 2, "bad box 7"),
        (WorkError("gate closed"), 1, "gate closed"),
        (KeyError("x"), 1, "train: unexpected KeyError: 'x'"),
    ],
)
def test_a_failure_is_one_line_an_exit_code_and_a_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception, code: int, message: str
) -> None:
    with pytest.raises(SystemExit) as ended, reported("train") as reporter:
        reporter.write_to(f"file://{tmp_path}")
        raise error
    assert ended.value.code == code
    captured = capsys.readouterr()
    failed = events_of(captured.out)[-1]
    assert (failed.kind, failed.fields["message"], failed.fields["exit_code"]) == ("failed", message, code)
    assert captured.err == f"error: {message}\n"
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert (failure["message"], failure["exit_code"]) == (message, code)
    assert "Traceback" in failure["stack"]


def test_a_new_try_removes_what_the_last_one_left(tmp_path: Path) -> None:
    for name in ("metrics.json", "report.html", "failure.json"):
        (tmp_path / name).write_text("old")
    (tmp_path / "history.jsonl").write_text("kept")
    with reported("train") as reporter:
        reporter.write_to(f"file://{tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["history.jsonl"]


def test_on_a_cluster_the_record_of_an_equal_run_stays_until_it_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two gates of the same arguments: the one that has ended finds its numbers while the other one works."""
    output = (tmp_path / "store" / "runs" / "one" / "evaluate").as_uri()

    def numbers() -> float | None:
        return evaluation_numbers((tmp_path / "store").as_uri(), "one", False)["evaluate"]["AP"]

    def begin(reporter: StepReporter, run: str) -> None:
        monkeypatch.setenv("KFP_POD_NAME", f"model-evaluation-{run}-system-container-impl-1")
        reporter.write_to(output)

    def end(reporter: StepReporter, ap: float) -> None:
        html = write_report(output, "<p>seen</p>")
        record = write_record(output, "evaluate", 1.0, {}, {"AP": ap}, html)
        reporter.publish(record, Metrics(tmp_path / "metrics"), Html(tmp_path / "report"))

    with reported("evaluate") as first:
        begin(first, "aaaaa")
        with reported("evaluate") as second:
            begin(second, "bbbbb")
            end(first, 0.5)
            with reported("evaluate") as third:
                begin(third, "ccccc")
                assert numbers() == 0.5
                end(second, 0.25)
                assert numbers() == 0.25
                end(third, 0.25)
    # On one machine a record says that the step is done.
    monkeypatch.delenv("KFP_POD_NAME")
    with reported("evaluate") as alone:
        alone.write_to(output)
    with pytest.raises(NotFound):
        numbers()


POD = "detector-training-x7abc-{}system-container-impl-{}"


def fail_on_a_cluster(output: Path, monkeypatch: pytest.MonkeyPatch, pod: str, index: str, error: Exception) -> str:
    """Let a step fail as a pod of a cluster, and return what it says; the index is the number of the try."""
    monkeypatch.setenv("KFP_POD_NAME", pod)
    monkeypatch.setenv("KFP_RETRY_INDEX", index)
    with pytest.raises(SystemExit) as ended, reported("train") as reporter:
        reporter.write_to(f"file://{output}", shared=True)
        raise error
    assert ended.value.code == (2 if isinstance(error, InputError) else 1)
    return str(json.loads((output / "failure.json").read_text())["message"])


@pytest.mark.parametrize("error", [WorkError("the loss is not finite"), InputError("no such backbone")])
def test_what_failed_by_itself_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(number: int, index: str, other: str = "") -> str:
        pod = POD.format("retry-", number).replace("x7abc", other or "x7abc")
        return fail_on_a_cluster(tmp_path, monkeypatch, pod, index, error if index == "0" else type(error)("other"))

    assert fail(1, "0") == str(error)
    assert fail(2, "1") == str(error)
    # Another run begins anew, and a first try of this one, which somebody has asked for, too.
    assert fail(3, "1", "k2p9z") == "other"
    assert fail(4, "0") == str(error)


def test_a_lost_pod_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_POD_NAME", POD.format("retry-", 1))
    monkeypatch.setenv("KFP_RETRY_INDEX", "0")
    with pytest.raises(SystemExit) as ended, reported("train") as reporter:
        reporter.write_to(f"file://{tmp_path}", shared=True)
        raise InterruptedWork("told to stop")
    assert ended.value.code == 130
    with pytest.raises(SystemExit), reported("train") as reporter:
        reporter.write_to(f"file://{tmp_path}", shared=True)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            # As when the reader of its lines is gone before it.
            raise BrokenPipeError
    assert json.loads((tmp_path / "failure.json").read_text())["run"] == ""
    monkeypatch.setenv("KFP_POD_NAME", POD.format("retry-", 2))
    monkeypatch.setenv("KFP_RETRY_INDEX", "1")
    with reported("train") as reporter:
        reporter.write_to(f"file://{tmp_path}", shared=True)


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(InputError, match=r"metrics\.json: not the record of a step"):
        read_record(str(tmp_path / "metrics.json"))


def test_only_numbers_become_metrics() -> None:
    assert scalars({"a": 1, "b": {"c": 2.5, "d": {"e": 3}}, "f": True, "g": "x", "h": None}) == {
        "a": 1.0,
        "b_c": 2.5,
        "b_d_e": 3.0,
    }


STEP = """
import subprocess, sys, time
from kubeyolo.steps.reporting import reported
with reported("train"):
    try:
        print("working", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up", flush=True)
"""


def test_sigterm_lets_a_step_clean_up() -> None:
    with subprocess.Popen([sys.executable, "-c", STEP], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "working" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGTERM)
        assert "cleaned up" in process.stdout.read()
        assert process.wait(timeout=30) == 128 + signal.SIGTERM


def test_a_step_ends_when_its_run_has_died() -> None:
    with subprocess.Popen(["sleep", "60"]) as run:
        environment = {**os.environ, "KUBEYOLO_RUN_PID": str(run.pid)}
        with subprocess.Popen([sys.executable, "-c", STEP], stdout=subprocess.PIPE, text=True, env=environment) as step:
            assert step.stdout is not None
            while "working" not in step.stdout.readline():
                pass
            run.kill()
            run.wait()
            start = time.monotonic()
            assert "cleaned up" in step.stdout.read()
            assert step.wait(timeout=30) == 128 + signal.SIGTERM
            assert time.monotonic() - start < 20
