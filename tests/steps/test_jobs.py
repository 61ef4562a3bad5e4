"""Steps in jobs: several processes store what one stores, and the step that launched the job judges the result."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.bundle import ONNX, WEIGHTS, Bundle, open_bundle
from kubeyolo.catalogue import STEPS
from kubeyolo.config.load import load_config
from kubeyolo.data.dataset import Dataset, open_dataset
from kubeyolo.errors import InputError, InterruptedWork, WorkError
from kubeyolo.launch import local
from kubeyolo.launch.launcher import LocalLauncher
from kubeyolo.publishing import publish_bundle
from kubeyolo.steps import facade
from kubeyolo.steps.call import StepCall
from kubeyolo.steps.job import StepSpec
from kubeyolo.steps.worker import run_step
from kubeyolo.storage.place import Place
from kubeyolo.training.distribution import Distribution
from kubeyolo.work import Work
from tests.export.tiny_detector import CLASSES, exported_detector
from tests.steps.called import validate_dataset
from tests.steps.fixed_detector import fixed_bundle, write_data
from tests.steps.fixed_work import fix_work


class Jobs(LocalLauncher):
    """Runs the steps in processes on this machine, or in this process, as a cluster would run them in jobs."""

    def __init__(self, processes: int = 1, run: Callable[[Work], None] | None = None) -> None:
        self.works: list[Work] = []
        self._processes = processes
        self._run = run or _in_this_process

    def has_job(self, step: str) -> bool:
        return step in ("evaluate", "export_model")

    def processes(self, step: str) -> int:
        return self._processes

    def launch(self, work: Work) -> None:
        self.works.append(work)
        self._run(work)


def _in_this_process(work: Work) -> None:
    run_step(StepSpec.model_validate_json(work.document), Distribution())


def opened(folder: Path, classes: tuple[str, ...]) -> Dataset:
    data = write_data(folder / "data", classes=classes)
    return open_dataset(Place.of(validate_dataset(str(data), str(folder / "store")).dataset))


# Real processes: MindSpore runs the network, msrun starts the processes.


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


def taken_files(folder: Path) -> dict[str, Any]:
    """Return the files of a result by name, the record without its seconds, and remove them."""
    files: dict[str, Any] = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    shutil.rmtree(folder)
    record = json.loads(files["metrics.json"])
    assert record.pop("seconds") > 0
    return files | {"metrics.json": record}


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


# In this process: what the step makes of a job.


@pytest.fixture
def found(tmp_path: Path) -> tuple[Bundle, Dataset]:
    """A detector with AP 0.6 in ONNX, and three images."""
    return open_bundle(Place.of(fixed_bundle(tmp_path / "made", {"onnx": 4}))), opened(tmp_path, ("disc", "ring"))


def gated(folder: Path, min_ap: float) -> StepCall:
    config = load_config(sets=[f"evaluate.min_ap={min_ap}", "evaluate.iou_threshold=0.5"])
    return StepCall(store=Place.of(folder / "store"), config=config, code="c")


def test_the_gate_is_judged_by_the_step_and_a_stored_result_starts_no_job(
    found: tuple[Bundle, Dataset], tmp_path: Path
) -> None:
    jobs = Jobs(3)
    with pytest.raises(WorkError, match=r"AP is 0\.6\d*, below the gate evaluate\.min_ap = 0\.9"):
        facade.evaluate(gated(tmp_path, 0.9), *found, "onnx", jobs)
    (work,) = jobs.works
    spec = StepSpec.model_validate_json(work.document)
    assert (work.step, work.processes, STEPS[work.step].is_alone, spec.runtime) == ("evaluate", 3, False, "onnx")
    assert (spec.config.evaluate.min_ap, spec.config.evaluate.iou_threshold) == (0, 0.5)
    assert work.reads == {"bundle": found[0].reference, "data set": found[1].reference}
    stored = facade.evaluate(gated(tmp_path, 0.5), *found, "onnx", jobs)
    assert stored.record.metrics["AP"] == pytest.approx(0.6, abs=0.01)
    # Nor does a step without jobs compute it again.
    assert facade.evaluate(gated(tmp_path, 0), *found, "onnx").reference == stored.reference
    assert len(jobs.works) == 1


def test_a_job_stores_what_the_step_itself_would_store(found: tuple[Bundle, Dataset], tmp_path: Path) -> None:
    by_job = facade.evaluate(gated(tmp_path, 0), *found, "onnx", Jobs())
    files = taken_files(Path(by_job.output.uri.removeprefix("file://")))
    here = facade.evaluate(gated(tmp_path, 0), *found, "onnx")
    assert taken_files(Path(here.output.uri.removeprefix("file://"))) == files


def test_a_job_that_stores_no_result_is_an_error(found: tuple[Bundle, Dataset], tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="the job of evaluate is complete, but its result is not"):
        facade.evaluate(gated(tmp_path, 0), *found, "onnx", Jobs(run=lambda work: None))


def test_two_evaluations_of_a_run_have_jobs_of_different_names(found: tuple[Bundle, Dataset], tmp_path: Path) -> None:
    jobs = Jobs()
    other = open_bundle(Place.of(fixed_bundle(tmp_path / "other", {"onnx": 6})))
    for bundle in (found[0], other):
        facade.evaluate(gated(tmp_path, 0), bundle, found[1], "onnx", jobs)
    names = {work.name for work in jobs.works}
    assert len(names) == 2 and all(name.startswith("evaluate-") for name in names)


def test_an_export_has_a_job_of_one_process(
    found: tuple[Bundle, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked = fix_work(monkeypatch, tmp_path, found[0].path(ONNX))
    jobs, call = Jobs(4), gated(tmp_path, 0)
    stored = facade.export_model(call, *found, jobs)
    (work,) = jobs.works
    assert (work.step, work.processes, STEPS[work.step].is_alone) == ("export_model", 1, True)
    assert worked.count("export") == 1
    assert facade.export_model(call, *found, jobs).reference == stored.reference and len(jobs.works) == 1


@pytest.mark.parametrize("document", ["", "{}", '{"step": "train"}'])
def test_a_document_of_something_else_is_refused(tmp_path: Path, document: str) -> None:
    path = tmp_path / "document.json"
    path.write_text(document)
    with pytest.raises(InputError, match=f"^{path}: is not the document of a step: "):
        StepSpec.read(path)
