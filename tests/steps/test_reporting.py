"""What a step in a process of its own says and leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.errors import InputError, InterruptedWork, WorkError
from kubeyolo.events import Event, StepRecord, parse_event
from kubeyolo.index import read_index
from kubeyolo.steps.outcome import StepOutcome, read_record, store_outcome
from kubeyolo.steps.reporting import StepReporter, reported
from kubeyolo.storage.place import Place
from tests.steps.called import write_report


class Artifact:
    """What is needed of each kind of kfp's artifacts."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.metadata: dict[str, Any] = {"kept": "there before"}
        self.logged: dict[str, float] = {}
        self.confusion: tuple[list[str], list[list[int]]] = ([], [])

    def log_metric(self, metric: str, value: float) -> None:
        self.logged[metric] = value

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None:
        self.confusion = (categories, matrix)


def events_of(text: str) -> list[Event]:
    return [event for event in map(parse_event, text.splitlines()) if event is not None]


def test_a_step_says_that_it_started_and_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, metrics = f"file://{tmp_path}/out", {"AP": 0.5, "onnx": {"AP": 0.25}, "n": None}
    report = Artifact(tmp_path / "a" / "report")
    with reported("train") as reporter:
        reporter.write_to(Place.of(output))
        outcome = StepOutcome(step="train", seconds=2.5, outputs={"bundle": "x"}, metrics=metrics, html="<p>seen</p>")
        stored = store_outcome(outcome, Place.of(output))
        reporter.publish(stored, report, f"{output}/index.json")
        record = stored.reference
    started, finished = events_of(capsys.readouterr().out)
    assert (started.kind, finished.kind, finished.fields["record"]) == ("started", "finished", record)
    assert Path(report.path).read_text() == "<p>seen</p>"
    expected = StepRecord(
        step="train", seconds=2.5, outputs={"bundle": "x"}, metrics=metrics, report=f"{output}/report.html"
    )
    assert stored.record == read_record(Place.of(record)) == read_index(Place.of(f"{output}/index.json")) == expected


def test_a_step_without_a_report_leaves_an_empty_one(tmp_path: Path) -> None:
    report = Artifact(tmp_path / "a" / "report")
    outcome = StepOutcome(step="pretrain_backbone", seconds=0.1, outputs={"backbone": ""})
    with reported("pretrain_backbone") as reporter:
        reporter.publish(store_outcome(outcome, Place.of(tmp_path / "out")), report)
    # Without a file kfp's local cache would take the step as not done.
    assert Path(report.path).read_bytes() == b""
    assert [path.name for path in (tmp_path / "out").glob("*.json")].count("metrics.json") == 1


def test_artifacts_are_filled_with_what_they_stand_for(tmp_path: Path) -> None:
    reporter = StepReporter("publish")
    handle, text, summary, confusion = (Artifact(tmp_path / "a" / name) for name in ("h", "t", "s", "c"))
    reporter.publish_handle(Place.of("minio://bucket/x").pinned("1" * 64), handle, model="m", AP=0.5, AP_int8=None)
    facts = {"store_uri": "minio://bucket/x", "digest": "1" * 64, "model": "m", "AP": 0.5}
    assert json.loads(Path(handle.path).read_text()) == facts
    assert handle.metadata == {"kept": "there before"} | facts
    reporter.publish_text("# Bär", text)
    assert Path(text.path).read_text(encoding="utf-8") == "# Bär"
    reporter.publish_summary({"AP": 0.123456, "AP_int8": None, "steps": 7}, summary)
    assert summary.logged == {"AP": 0.1235, "steps": 7.0}
    reporter.publish_confusion(b'{"categories": ["a", "background"], "matrix": [[1, 0], [2, 3]]}', confusion)
    assert confusion.confusion == (["a", "background"], [[1, 0], [2, 3]])
    assert Path(summary.path).exists() and Path(confusion.path).exists()


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
        reporter.write_to(Place.of(tmp_path))
        raise error
    assert ended.value.code == code
    captured = capsys.readouterr()
    failed = events_of(captured.out)[-1]
    assert (failed.kind, failed.fields["message"], failed.fields["exit_code"]) == ("failed", message, code)
    assert captured.err == f"error: {message}\n"
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert (failure["message"], failure["exit_code"]) == (message, code)
    assert "Traceback" in failure["stack"]


def test_a_new_try_removes_the_failure_and_leaves_what_other_runs_find(tmp_path: Path) -> None:
    names = ("metrics.json", "report.html", "failure.json", "history.jsonl")
    for name in names:
        (tmp_path / name).write_text("old")
    with reported("train") as reporter:
        reporter.write_to(Place.of(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name in names) == sorted({*names} - {"failure.json"})
    assert (tmp_path / "metrics.json").read_text() == "old"


def test_the_record_of_an_equal_run_stays_while_another_one_works(tmp_path: Path) -> None:
    output, index = (tmp_path / "out").as_uri(), (tmp_path / "index.json").as_uri()

    def end(reporter: StepReporter, ap: float) -> str:
        outcome = StepOutcome(step="evaluate", seconds=1.0, metrics={"AP": ap}, html="<p>seen</p>")
        stored = store_outcome(outcome, Place.of(output))
        reporter.publish(stored, Artifact(tmp_path / "report"), index)
        return stored.reference

    with reported("evaluate") as first, reported("evaluate") as second:
        first.write_to(Place.of(output))
        second.write_to(Place.of(output))
        record = end(first, 0.5)
        with reported("evaluate") as third:
            third.write_to(Place.of(output))
            assert read_record(Place.of(record)).metrics["AP"] == read_index(Place.of(index)).metrics["AP"] == 0.5
            assert end(third, 0.5) == record
        assert end(second, 0.5) == record
    assert read_record(Place.of(record)).metrics["AP"] == 0.5


def test_a_failure_names_the_report_that_was_written_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for has_report in (False, True):
        capsys.readouterr()
        with pytest.raises(SystemExit), reported("quantize") as reporter:
            reporter.write_to(Place.of(tmp_path / "out"))
            if has_report:
                write_report(f"file://{tmp_path}/out", "<p>seen</p>")
            raise WorkError("too much is lost")
        (*_, failed) = events_of(capsys.readouterr().out)
        assert failed.fields["report"] == (f"file://{tmp_path}/out/report.html" if has_report else "")


POD = "detector-training-x7abc-{}system-container-impl-{}"


def fail_on_a_cluster(output: Path, monkeypatch: pytest.MonkeyPatch, pod: str, index: str, error: Exception) -> str:
    """Let a step fail as a pod of a cluster, and return what it says; the index is the number of the try."""
    monkeypatch.setenv("KFP_POD_NAME", pod)
    monkeypatch.setenv("KFP_RETRY_INDEX", index)
    with pytest.raises(SystemExit) as ended, reported("train") as reporter:
        reporter.write_to(Place.of(output))
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
        reporter.write_to(Place.of(tmp_path))
        raise InterruptedWork("told to stop")
    assert ended.value.code == 130
    with pytest.raises(SystemExit), reported("train") as reporter:
        reporter.write_to(Place.of(tmp_path))
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            # As when the reader of its lines is gone before it.
            raise BrokenPipeError
    assert json.loads((tmp_path / "failure.json").read_text())["run"] == ""
    monkeypatch.setenv("KFP_POD_NAME", POD.format("retry-", 2))
    monkeypatch.setenv("KFP_RETRY_INDEX", "1")
    with reported("train") as reporter:
        reporter.write_to(Place.of(tmp_path))


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(InputError, match=r"metrics\.json: not the record of a step"):
        read_record(Place.of(tmp_path / "metrics.json"))


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
