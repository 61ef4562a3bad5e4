"""What a run on the cluster has made, by what lies in its store."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.bundle import BundleFile, BundleManifest
from kubeyolo.events import StepRecord
from kubeyolo.runs.remote import RemoteRun, RemoteStep
from kubeyolo.runs.result import remote_result
from kubeyolo.storage.uri import join_uri, write_document

TRAINING = ("validate_dataset", "train", "evaluate", "export_model", "quantize", "publish")
MANIFEST = BundleManifest(
    model="yolov5n-r7",
    classes=("a",),
    image_size=(64, 64),
    strides=(8,),
    anchors=(((1.0, 1.0),),),
    files={"model.onnx": BundleFile(size=1, sha256="0" * 64)},
)


def ended(*steps: str, state: str = "SUCCEEDED", **arguments: Any) -> RemoteRun:
    made = tuple(RemoteStep(name=step, state="SUCCEEDED") for step in steps)
    return RemoteRun("id", "name", state, "group", None, datetime.now(UTC) + timedelta(minutes=1), made, arguments)


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store with what the run ``one`` has measured."""
    uri = tmp_path.as_uri()
    metrics = {"evaluate": {"AP": 0.5}, "export_model": {"onnx": {"AP": 0.4}}, "quantize": {"int8": {"AP": 0.3}}}
    for step, values in metrics.items():
        record = StepRecord(step=step, seconds=1.0, metrics=values)
        write_document(join_uri(uri, "runs", "one", step, "metrics.json"), record.model_dump_json().encode())
    write_document(
        join_uri(uri, "runs", "one", "quantize", "bundle", "bundle.json"), MANIFEST.model_dump_json().encode()
    )
    return uri


def test_a_training_has_numbers_and_a_bundle(store: str) -> None:
    result = remote_result(ended(*TRAINING, store=store, run_name="one", model="yolov5n-r7", data="minio://d"))
    assert result is not None
    assert {name: numbers["AP"] for name, numbers in result.numbers.items()} == {
        "trained": 0.5,
        "ONNX": 0.4,
        "int8": 0.3,
    }
    assert result.bundle == f"{store}/models/yolov5n-r7/{MANIFEST.content_version}"


def test_a_version_that_was_given_is_that_of_the_bundle(store: str) -> None:
    result = remote_result(ended(*TRAINING, store=store, run_name="one", data="minio://d", version="1.0.0"))
    # The model is that of the pipeline, where none was given.
    assert result is not None and result.bundle == f"{store}/models/yolov5n-r7/1.0.0"


@pytest.mark.parametrize("later", ["evaluate/metrics.json", "quantize/metrics.json", "quantize/bundle/bundle.json"])
def test_results_some_of_which_a_later_run_has_written_are_not_shown(store: str, tmp_path: Path, later: str) -> None:
    folder = tmp_path / "runs" / "one"
    run = replace(ended(*TRAINING, store=store, run_name="one", data="minio://d"), ended=datetime.now(UTC))
    for path in folder.rglob("*.json"):
        os.utime(path, (0, 0))
    before = remote_result(run)
    assert before is not None and before.numbers and before.bundle
    moment = datetime.now(UTC) + timedelta(minutes=1)
    os.utime(folder / later, (moment.timestamp(), moment.timestamp()))
    result = remote_result(run)
    assert result is not None and result.note.startswith("a later run has written its results in place of these")
    assert not result.numbers and not result.bundle


def test_a_store_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    result = remote_result(ended(*TRAINING, store=tmp_path.as_uri(), run_name="two", data="minio://d"))
    assert result is not None and result.note.startswith("what it has made cannot be read from here:")
    assert not result.numbers and not result.bundle


@pytest.mark.parametrize(
    ("steps", "note"),
    [
        (("read_pointer", "promote"), "a new model was put in use"),
        (("read_pointer",), "unchanged: the data is that of the model in use"),
    ],
)
def test_a_retraining_says_which_model_is_in_use(store: str, steps: tuple[str, ...], note: str) -> None:
    bundle = f"{store}/models/yolov5n-r7/1.0.0"
    write_document(f"{store}/models/yolov5n-r7/latest.json", json.dumps({"bundle": bundle}).encode())
    result = remote_result(ended(*steps, store=store, pointer=f"{store}/data.json"))
    assert result is not None and (result.bundle, result.in_use, result.note) == ("", bundle, note)


@pytest.mark.parametrize("run", [ended("train", state="FAILED"), ended("train", state="RUNNING"), ended("evaluate")])
def test_what_publishes_nothing_has_no_result(run: RemoteRun) -> None:
    assert remote_result(run) is None
