"""Steps in jobs, in processes of this machine or in the process of the test, and the files that they store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kubeyolo.data.dataset import Dataset, open_dataset
from kubeyolo.launch.launcher import LocalLauncher
from kubeyolo.steps.job import StepSpec
from kubeyolo.steps.worker import run_step
from kubeyolo.storage.place import Place
from kubeyolo.training.distribution import Distribution
from kubeyolo.work import Work
from tests.steps.called import validate_dataset
from tests.steps.fixed_detector import write_data


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
    """Write and validate a data set of three images a split, and open what was stored."""
    data = write_data(folder / "data", classes=classes)
    return open_dataset(Place.of(validate_dataset(str(data), str(folder / "store")).dataset))


def taken_files(folder: Path) -> dict[str, Any]:
    """Return the files of a result by name, the record without its seconds, and remove them."""
    files: dict[str, Any] = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    shutil.rmtree(folder)
    record = json.loads(files["metrics.json"])
    assert record.pop("seconds") > 0
    return files | {"metrics.json": record}
