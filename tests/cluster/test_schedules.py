"""Schedules as files: applied to the cluster's recurring runs, which then start by themselves."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubeyolo.runs.kubeflow import Kubeflow
from kubeyolo.storage.uri import join_uri, write_document
from tests.cluster.site import Site, wait_for

SCHEDULE = """
name: {name}
cron: "0 * * * * *"
pipeline: detector-retraining
parameters:
  pointer: {pointer}
  store: {store}
  model: yolov5n-r7
  max_epoch: 1
  image_size: 96
  per_batch_size: 4
  pretrain_overrides: {{enabled: false}}
  quantize_overrides: {{max_drop: 100, calibration_images: 4}}
  export_overrides: {{parity_images: 2}}
"""


@pytest.fixture
def folder(site: Site, data: str, tmp_path: Path) -> Iterator[Path]:
    """A folder with a schedule for every minute; what it has made on the cluster is deleted in the end."""
    store, name = site.new_store(), f"test-{uuid.uuid4().hex[:6]}"
    pointer = join_uri(store, "pointers", "latest.json")
    write_document(pointer, json.dumps({"data": data}).encode())
    folder = tmp_path / "schedules"
    folder.mkdir()
    # Schedules without a file in the folder are disabled: those of others are switched on again.
    others = [one for one in Kubeflow().recurring() if one.enabled]
    (folder / f"{name}.yaml").write_text(SCHEDULE.format(name=name, pointer=pointer, store=store))
    yield folder
    for one in Kubeflow().recurring():
        if one.name == name:
            Kubeflow().delete(one)
    kubeflow = Kubeflow()
    for one in others:
        kubeflow.enable(one, True)
    for run in kubeflow.runs(kubeflow.experiment(name)):
        if not run.is_over:
            kubeflow.terminate(run.id)


def test_a_schedule_starts_runs_trains_once_and_ends_with_its_file(site: Site, folder: Path) -> None:
    (file,) = folder.iterdir()
    name, files = file.stem, (str(folder), "--images", site.images)
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
    assert [step.name for step in idle.steps if step.state == "SUCCEEDED"] == ["read_pointer", "stop_training"]

    file.unlink()
    code, text = site.call("pipeline", "schedule", "apply", *files)
    assert code == 0 and f"disable {name}" in text, text
    count = len(list(kubeflow.runs(kubeflow.experiment(name))))
    time.sleep(75)
    assert len(list(kubeflow.runs(kubeflow.experiment(name)))) == count
