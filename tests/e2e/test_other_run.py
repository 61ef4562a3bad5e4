"""Two runs of the whole pipeline in one store, of other settings: the second is killed in between and goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.bundle import ONNX, ONNX_INT8, WEIGHTS, open_bundle
from kubeyolo.storage.place import Place
from tests.e2e.work_folder import CACHED, WorkFolder, from_the_cache, started

pytestmark = pytest.mark.e2e

SETTINGS = ("--set", "train.val_interval=0", "--set", "train.keep=last", "--set", "pretrain.enabled=false")
"""Settings of trainings that are not about their best weights, nor about the backbone that they start from."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> WorkFolder:
    return WorkFolder(tmp_path_factory.mktemp("e2e"), "yolov4-tiny")


@dataclass(frozen=True)
class OtherRun:
    """A run of other settings in the same store, whose training was killed, and the same command again.

    Attributes:
        killed: The command whose training was killed.
        again: The same command again.
        first: Summary of the first run.
        published: Every file that was published before, with its content.
        run: Folder of the first run.
        other: Folder of this run.
    """

    killed: subprocess.CompletedProcess[str]
    again: subprocess.CompletedProcess[str]
    first: dict[str, Any]
    published: dict[Path, bytes]
    run: Path
    other: Path


@pytest.fixture(scope="module")
def longer(work: WorkFolder) -> OtherRun:
    settings = [*SETTINGS, "--set", "train.max_epoch=4", "--set", "train.ckpt_interval=2"]
    done = work.run(*SETTINGS)
    assert done.returncode == 0, done.stdout + done.stderr
    run, first = work.latest.resolve(), json.loads((work.latest / "summary.json").read_text())
    published = files_of(work.folder / "store" / "models")
    before = set(work.folder.rglob("checkpoint.json"))
    killer = threading.Thread(target=kill_worker, args=(work.folder, before))
    killer.start()
    killed = work.run(*settings)
    killer.join()
    again = work.run(*settings)
    return OtherRun(killed, again, first, published, run, work.latest.resolve())


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_whose_training_is_killed_goes_on_at_its_checkpoint(longer: OtherRun) -> None:
    assert longer.killed.returncode == 1
    (line,) = longer.killed.stderr.strip().splitlines()
    assert "train" in line and "SIGKILL" in line
    assert longer.again.returncode == 0, longer.again.stdout + longer.again.stderr
    assert "• validate_dataset from the cache" in longer.again.stdout
    (step,) = re.findall(r"resuming at step (\d+) of 12", longer.again.stdout)
    assert 2 <= int(step) < 12


def test_runs_of_other_settings_in_one_store_leave_each_other_alone(work: WorkFolder, longer: OtherRun) -> None:
    """Each publishes a network of its own, and an equal run later finds all of the first one, untouched."""
    first, second = longer.first, json.loads((longer.other / "summary.json").read_text())
    assert longer.other != longer.run
    assert second["bundle"] != first["bundle"] and second["dataset"] == first["dataset"]
    one, other = (open_bundle(Place.of(summary["bundle"])).manifest for summary in (first, second))
    assert (one.config["train"]["max_epoch"], other.config["train"]["max_epoch"]) == (2, 4)
    for file in (WEIGHTS, ONNX, ONNX_INT8):
        assert one.files[file].sha256 != other.files[file].sha256, file

    begun = time.monotonic()
    done = work.run(*SETTINGS)
    print(f"a run from the cache: {time.monotonic() - begun:.1f} s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert from_the_cache(done.stdout) == CACHED
    assert started(done.stdout) == ["configure"]
    assert work.latest.resolve() == longer.run
    # The same bundle again, and not a byte of it is another one.
    assert json.loads((work.latest / "summary.json").read_text()) == first
    assert longer.published.items() <= files_of(work.folder / "store" / "models").items()


def kill_worker(folder: Path, before: set[Path]) -> None:
    """Kill the training process of a run in this folder once it has written a checkpoint."""
    while not set(folder.rglob("checkpoint.json")) - before:
        time.sleep(0.01)
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            ours = f"KUBEYOLO_CACHE={folder}".encode() in (process / "environ").read_bytes()
            if ours and b"kubeyolo.training.worker" in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
