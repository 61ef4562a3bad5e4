"""Schedules as files: applied to the cluster's recurring runs, which then start by themselves."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kubeyolo.kubeflow.client import Kubeflow
from kubeyolo.storage.place import Place
from tests.cluster.site import Site, Submission, wait_for

SCHEDULE = """
name: {name}
cron: "{cron}"
pipeline: detector-retraining
parameters:
  pointer: {store}/pointers/latest.json
  store: {store}
  model: yolov5n-r7
  max_epoch: 1
  image_size: 96
  per_batch_size: 4
  max_regression: {max_regression}
  settings:
    pretrain: {{enabled: false}}
    quantize: {{max_drop: 100, calibration_images: 4}}
    export: {{parity_images: 2}}
"""


@dataclass(frozen=True)
class Schedule:
    """A folder with the file of one schedule, and the store of its runs."""

    folder: Path
    name: str
    store: str

    def write(self, data: str, cron: str = "0 0 3 1 1 *", max_regression: float = 0.0) -> Path:
        """Write the file, and the pointer to the data set."""
        pointer = (Place.of(self.store) / "pointers" / "latest.json").uri
        Place.of(pointer).write(json.dumps({"data": data}).encode())
        file = self.folder / f"{self.name}.yaml"
        text = SCHEDULE.format(name=self.name, cron=cron, store=self.store, max_regression=max_regression)
        file.write_text(text)
        return file

    @property
    def latest(self) -> str:
        """URI of the pointer to the current model."""
        return (Place.of(self.store) / "models" / "yolov5n-r7" / "latest.json").uri

    def current(self) -> str:
        """Return the URI of the bundle that is the current model."""
        return str(json.loads(Place.of(self.latest).read())["bundle"])


@pytest.fixture
def schedule(site: Site, tmp_path: Path) -> Iterator[Schedule]:
    """A schedule; what it has made on the cluster is deleted in the end."""
    folder = tmp_path / "schedules"
    folder.mkdir()
    found = Schedule(folder, f"test-{uuid.uuid4().hex[:6]}", site.new_store())
    yield found
    kubeflow = Kubeflow()
    for one in kubeflow.recurring():
        if one.name == found.name:
            kubeflow.delete(one)
    for run in kubeflow.runs(kubeflow.experiment(found.name)):
        if not run.is_over:
            kubeflow.terminate(run.id)


def test_a_schedule_starts_runs_trains_once_and_ends_with_its_file(site: Site, data: str, schedule: Schedule) -> None:
    file = schedule.write(data, cron="0 * * * * *")
    name, files = schedule.name, (str(schedule.folder), "--owner", schedule.name, "--images", site.images)
    code, text = site.call("pipeline", "schedule", "apply", *files)
    assert code == 0 and f"create {name}" in text, text
    code, text = site.call("pipeline", "schedule", "apply", *files)
    assert code == 0 and "create" not in text and "update" not in text, text
    assert site.call("pipeline", "schedule", "diff", *files)[0] == 0

    kubeflow = Kubeflow()
    # By itself at the next minute; one at a time, so that the second begins when the first has ended.
    first = wait_for(lambda: next(iter(kubeflow.runs(kubeflow.experiment(name))), None), 150, "the first run")
    wait_for(lambda: kubeflow.run(first.id).is_over, 900, "the end of the first run")
    ended = kubeflow.run(first.id)
    assert ended.state == "SUCCEEDED", ended
    assert ended.step("promote") is not None
    second = wait_for(
        lambda: next((run for run in kubeflow.runs(kubeflow.experiment(name)) if run.id != first.id), None),
        150,
        "the second run",
    )
    wait_for(lambda: kubeflow.run(second.id).is_over, 300, "the end of the second run")
    idle = kubeflow.run(second.id)
    assert idle.state == "SUCCEEDED"
    assert [step.name for step in idle.steps if step.state == "SUCCEEDED"] == ["configure"]

    file.unlink()
    code, text = site.call("pipeline", "schedule", "apply", *files)
    assert code == 0 and f"disable {name}" in text, text
    count = len(list(kubeflow.runs(kubeflow.experiment(name))))
    time.sleep(75)
    assert len(list(kubeflow.runs(kubeflow.experiment(name)))) == count


def test_a_worse_model_does_not_become_the_current_one(
    site: Site, other_data: str, undisturbed: Submission, schedule: Schedule
) -> None:
    """One epoch on other data against a training of many."""
    code, text = site.call("publish", undisturbed.bundle, "--store", schedule.store, "--latest", schedule.latest)
    assert code == 0, text
    before = schedule.current()
    run = ("pipeline", "schedule", "run", schedule.name, str(schedule.folder), "--images", site.images, "--wait")

    schedule.write(other_data)
    code, text = site.call(*run)
    assert code == 1 and "promote failed" in text and "worse than the current one" in text, text
    assert schedule.current() == before

    schedule.write(other_data, max_regression=100.0)
    code, text = site.call(*run)
    assert code == 0, text
    assert schedule.current() != before
    code, text = site.call(*run)
    assert code == 0 and "unchanged: the current model was trained on this data" in text, text
    assert "promote" not in text and f"current  {schedule.current()}" in text, text
