"""Ends of real trainings: a terminal that is gone, and a lack of memory in Python."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kubeyolo.config.schema import Config
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.data.shards import write_dataset
from kubeyolo.storage.place import Place
from kubeyolo.training import process, worker
from kubeyolo.training.distribution import Distribution
from kubeyolo.training.loop import StopRequest
from kubeyolo.training.spec import TrainingSpec
from tests.training.killing import history_of


def test_a_training_outlives_the_terminal_it_draws_on(tmp_path: Path) -> None:
    """As under nohup: no signal comes, and process, bar and launcher write to a terminal that is gone."""
    dataset = write_dataset(
        generate_sample_dataset(tmp_path / "source", train=16, val=4), Place.of(tmp_path / "store")
    ).uri
    sets = ["train.image_size=64", "train.per_batch_size=4", "train.max_epoch=2", "train.log_interval=1"]
    command = [sys.executable, "-m", "kubeyolo.cli.app", "train", dataset, "-o", str(tmp_path / "out")]
    command += ["--model", "yolov5n-r7", *(word for pair in sets for word in ("--set", pair))]
    (tmp_path / "tmp").mkdir()
    places = {"TMPDIR": str(tmp_path / "tmp"), "KUBEYOLO_CACHE": str(tmp_path / "cache")}
    environment = {**os.environ, **places, "PYTHONPATH": os.pathsep.join(sys.path)}
    ours, terminal = pty.openpty()
    training = subprocess.Popen(
        command,
        env=environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        start_new_session=True,
    )
    os.close(terminal)
    heard = b""
    while b"iter[1]" not in heard:
        heard += os.read(ours, 4096)
    os.close(ours)
    # What was not printed is lost, and all else is done.
    assert training.wait(120) == 1
    assert (tmp_path / "out" / "bundle" / "bundle.json").is_file() and (tmp_path / "out" / "report.html").is_file()
    assert [row["step"] for row in history_of(tmp_path / "out") if row["kind"] == "train"] == list(range(1, 9))
    assert list((tmp_path / "tmp").iterdir()) == []


def ended(
    spec: TrainingSpec, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Run the training process of a spec in this process; return its exit code and the line that it prints last."""
    monkeypatch.setattr(StopRequest, "install", lambda self, listen=True: None)
    monkeypatch.setattr(process, "die_with_parent", lambda: None)
    monkeypatch.delenv("KUBEYOLO_OUTCOME", raising=False)
    (folder / "spec.json").write_text(spec.model_dump_json())
    code = worker.main([str(folder / "spec.json")])
    return code, capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("-----\n- Kernel error:\n-----\nmemory isn't enough and alloc failed, kernel name: Conv2D"),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=["python", "mindspore", "system"],
)
def test_a_lack_of_memory_says_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    spec = TrainingSpec(dataset="d", output="o", config=Config.model_validate({"train": {"per_batch_size": 24}}))
    monkeypatch.setattr(worker, "run_training", fail)
    code, message = ended(spec, tmp_path, monkeypatch, capsys)
    assert code == 1 and message.startswith(f"out of memory ({type(error).__name__}")
    assert "lower data.workers (2)" in message and "train.per_batch_size (24)" in message
    assert "\n" not in message and "---" not in message
    assert str(error).splitlines()[-1:] == [] or str(error).splitlines()[-1] in message


def test_an_array_that_is_too_large_is_a_lack_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker, "run_training", lambda *arguments: np.empty(1 << 60, np.uint8))
    spec = TrainingSpec(dataset="d", output="o", config=Config())
    code, message = ended(spec, tmp_path, monkeypatch, capsys)
    assert code == 1 and message.startswith("out of memory (MemoryError: Unable to allocate")


def test_an_outcome_that_a_full_disk_does_not_take_does_not_undo_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rank-0.part").symlink_to("/dev/full")
    monkeypatch.setenv("KUBEYOLO_OUTCOME", str(tmp_path))
    assert not process.leave_outcome(Distribution(), 0, "")
    (tmp_path / "rank-0.part").unlink()
    assert process.leave_outcome(Distribution(), 0, "")
    assert json.loads((tmp_path / "rank-0.json").read_text())["exit_code"] == 0


SCHEDULER = """
import time
from kubeyolo.training import process, worker
process.configure_mindspore = lambda *_: None
def join(distribution):
    print("joined", flush=True)
    time.sleep(1)
process.join = join
raise SystemExit(worker.main(["spec"]))
"""


def test_the_scheduler_stays_until_the_processes_that_need_it_are_gone() -> None:
    environment = {**os.environ, "MS_ROLE": "MS_SCHED"}
    with subprocess.Popen([sys.executable, "-c", SCHEDULER], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stdout.readline() == b"joined\n"
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            process.send_signal(number)
        assert process.wait(20) == 0
