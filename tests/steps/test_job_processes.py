"""Steps in jobs of several processes that msrun starts, with a real network: they store what one process stores."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from kubeyolo.bundle import WEIGHTS, Bundle, open_bundle
from kubeyolo.config.load import load_config
from kubeyolo.data.dataset import Dataset
from kubeyolo.errors import InputError, InterruptedWork
from kubeyolo.launch import local
from kubeyolo.publishing import publish_bundle
from kubeyolo.steps import facade
from kubeyolo.steps.facade import StepCall
from kubeyolo.storage.place import Place
from kubeyolo.work import Work
from tests.export.tiny_detector import CLASSES, exported_detector
from tests.steps.jobs import Jobs, opened, taken_files


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Dataset]:
    """A detector with random weights, and three images."""
    base = tmp_path_factory.getbasetemp()
    detector = exported_detector(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
    folder = tmp_path_factory.mktemp("evaluated")
    bundle = publish_bundle(Place.of(folder / "detector"), detector.manifest, {WEIGHTS: detector.weights})
    return open_bundle(Place.of(bundle.uri)), opened(folder, CLASSES)


def call_of(folder: Path) -> StepCall:
    config = load_config(sets=["evaluate.per_batch_size=1", "evaluate.max_det=20"])
    return StepCall(store=Place.of(folder / "store"), config=config, code="c", output=Place.of(folder / "out"))


def in_processes(lines: list[str], module: str = "") -> Callable[[Work], None]:
    def run(work: Work) -> None:
        local.launch_work(work.model_copy(update={"module": module} if module else {}), lines.append)

    return run


WORKER = """
import os, sys, time
from pathlib import Path
from kubeyolo.evaluation.sharing import Share
from kubeyolo.steps import worker

store_now = Share.store

def store(share, *detected):
    if share.rank == 1 and Path(os.environ["TEST_HOLD"]).exists():
        time.sleep(600)
    store_now(share, *detected)
    print("stored share", share.rank, flush=True)

Share.store = store
sys.exit(worker.main())
"""


@pytest.fixture
def slow_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that works as the module of steps does, and holds process 1 while a file exists."""
    (tmp_path / "slow_worker.py").write_text(WORKER)
    monkeypatch.setattr(local, "WORKER_MODULES", {*local.WORKER_MODULES, "slow_worker"})
    paths = [str(tmp_path), str(Path(local.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("TEST_HOLD", str(tmp_path / "hold"))
    return "slow_worker"


def test_two_processes_store_what_one_stores_also_after_they_were_stopped(
    evaluated: tuple[Bundle, Dataset], tmp_path: Path, slow_worker: str
) -> None:
    call, folder = call_of(tmp_path), tmp_path / "out"
    facade.evaluate(call, *evaluated, launcher=Jobs(1, in_processes([])))
    alone = taken_files(folder)
    assert {"metrics.json", "result.json", "detections.json", "confusion.json", "report.html"} <= alone.keys()
    assert len(json.loads(alone["detections.json"])) == 60

    def stop(work: Work) -> None:
        def show(line: str) -> None:
            lines.append(line)
            if line == "stored share 0":
                os.kill(os.getpid(), signal.SIGTERM)

        local.launch_work(work.model_copy(update={"module": slow_worker}), show)

    lines: list[str] = []
    (tmp_path / "hold").touch()
    with pytest.raises(InterruptedWork, match="^interrupted: stopped by a signal; run the same command again$"):
        facade.evaluate(call, *evaluated, launcher=Jobs(2, stop))
    assert lines[-1] == "stopping, without a checkpoint; Ctrl-C again ends it at once"
    (share,) = (folder / "shares").iterdir()
    assert share.name.endswith("-0-of-2.json") and not (folder / "metrics.json").exists()

    (tmp_path / "hold").unlink()
    lines.clear()
    facade.evaluate(call, *evaluated, launcher=Jobs(2, in_processes(lines, slow_worker)))
    # Process 0 took its share from the store.
    assert "stored share 0" not in lines
    assert taken_files(folder) == alone


def test_the_input_that_one_process_cannot_use_is_named_and_nothing_is_stored(
    evaluated: tuple[Bundle, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_GRACE_SECONDS", 1.0)
    dataset = opened(tmp_path, CLASSES)
    split = dataset.split("val")
    assert split.index.offset is not None and split.index.length is not None
    # The second image, which process 1 reads.
    with split.shards[0].open("r+b") as shard:
        shard.seek(int(split.index.offset[1]))
        shard.write(bytes(int(split.index.length[1])))
    with pytest.raises(InputError, match=f"{split.shards[0].name}.*2.png"):
        facade.evaluate(call_of(tmp_path), evaluated[0], dataset, launcher=Jobs(2, in_processes([])))
    assert not (tmp_path / "out" / "metrics.json").exists()
