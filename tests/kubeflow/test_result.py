"""What a run on the cluster has made, by what lies in its store."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.errors import InputError
from kubeyolo.events import StepRecord
from kubeyolo.index import RESULT, STORE, read_index, read_note, run_output, write_note
from kubeyolo.kubeflow.remote import RemoteRun, RemoteStep
from kubeyolo.kubeflow.result import RemoteResult, remote_result
from kubeyolo.storage.base import NotFound
from kubeyolo.storage.place import Place

TRAINING = ("configure", "validate_dataset", "train", "evaluate", "export_model", "quantize", "publish")
RUN_ID = "0f6d5a1e-1111-4222-8333-444455556666"
METRICS = {"version": "1.0.0", "mindspore": {"AP": 0.5, "AP50": 0.7}, "onnx": {"AP": 0.4}, "int8": {"AP": 0.3}}


def ended(*steps: str, state: str = "SUCCEEDED", run_id: str = RUN_ID, **arguments: Any) -> RemoteRun:
    made = tuple(RemoteStep(name=step, state="SUCCEEDED") for step in steps)
    return RemoteRun(run_id, "name", state, "group", None, datetime.now(UTC) + timedelta(minutes=1), made, arguments)


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store with the note of a run, and the record of its last step."""
    uri = tmp_path.as_uri()
    place = Place.of(uri)
    bundle = Place.of(f"{uri}/models/yolov5n-r7/1.0.0").pinned("0" * 64).reference
    write_note(place, RUN_ID, {"name": "one", "pipeline": "p", "index": run_output(place, "one", RESULT).uri})
    record = StepRecord(step="publish", seconds=1.0, outputs={"bundle": bundle}, metrics=METRICS)
    run_output(place, "one", RESULT).write(record.model_dump_json().encode())
    return uri


def test_a_run_is_found_by_its_id_and_by_its_name(store: str, tmp_path: Path) -> None:
    assert json.loads((tmp_path / "runs" / "ids" / f"{RUN_ID}.json").read_text())["name"] == "one"
    assert read_note(Place.of(store), RUN_ID)["index"] == f"{store}/runs/one/result.json"
    assert read_index(Place.of(f"{store}/runs/one/result.json")).metrics == METRICS
    with pytest.raises(NotFound):
        read_note(Place.of(store), "another")
    with pytest.raises(NotFound):
        read_index(run_output(Place.of(store), "two", RESULT))
    (tmp_path / "runs" / "ids" / "odd.json").write_text("[]")
    with pytest.raises(InputError, match="odd.json: not the note of a run"):
        read_note(Place.of(store), "odd")
    (tmp_path / "runs" / "one" / "result.json").write_text('{"step": 7}')
    with pytest.raises(InputError, match="result.json: not the record of a step"):
        read_index(run_output(Place.of(store), "one", RESULT))


def test_a_training_has_numbers_and_a_bundle(store: str) -> None:
    result = remote_result(ended(*TRAINING, store=store, data="minio://d"))
    assert result is not None and result.note == "" and result.current == ""
    assert {name: numbers["AP"] for name, numbers in result.numbers.items()} == {
        "trained": 0.5,
        "ONNX": 0.4,
        "int8": 0.3,
    }
    assert len(result.numbers["trained"]) == 12 and result.numbers["trained"]["AP75"] is None
    assert result.bundle == f"{store}/models/yolov5n-r7/1.0.0"


def test_a_run_without_a_store_in_its_form_has_that_of_the_environment(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(STORE, raising=False)
    for form in ({}, {"store": ""}):
        result = remote_result(ended(*TRAINING, data="minio://d", **form))
        assert result == RemoteResult(
            note=f"the run uses the store of the cluster; set {STORE} to its URI to see the results"
        )
    monkeypatch.setenv(STORE, store)
    result = remote_result(ended(*TRAINING, data="minio://d", store=""))
    assert result is not None and result.bundle == f"{store}/models/yolov5n-r7/1.0.0"


@pytest.mark.parametrize(
    ("steps", "form"),
    [(TRAINING, {"data": "minio://d"}), (("configure", "promote"), {"pointer": "minio://d/latest.json"})],
)
def test_results_that_a_later_run_has_written_are_not_shown(
    store: str, tmp_path: Path, steps: tuple[str, ...], form: dict[str, str]
) -> None:
    run = replace(ended(*steps, store=store, **form), ended=datetime.now(UTC))
    index = tmp_path / "runs" / "one" / "result.json"
    os.utime(index, (0, 0))
    before = remote_result(run)
    assert before is not None and before.numbers and before.bundle
    moment = (datetime.now(UTC) + timedelta(minutes=1)).timestamp()
    os.utime(index, (moment, moment))
    note = f"a later run with the same name has replaced the results: {store}/runs/one/result.json"
    assert remote_result(run) == RemoteResult(note=note)


@pytest.mark.parametrize("missing", [f"ids/{RUN_ID}.json", "one/result.json"])
def test_a_store_that_cannot_be_read_is_told(store: str, tmp_path: Path, missing: str) -> None:
    (tmp_path / "runs" / missing).unlink()
    result = remote_result(ended(*TRAINING, store=store, data="minio://d"))
    assert result is not None and result.note.startswith("cannot read its results on this machine:")
    assert missing in result.note and not result.numbers and not result.bundle


def test_a_note_that_names_no_index_is_told(store: str) -> None:
    write_note(Place.of(store), RUN_ID, {"name": "one"})
    result = remote_result(ended(*TRAINING, store=store, data="minio://d"))
    assert result is not None and "cannot read its results on this machine" in result.note


def test_a_retraining_says_which_model_is_the_current_one(store: str) -> None:
    bundle, pointer = f"{store}/models/yolov5n-r7/1.0.0", {"pointer": "minio://d/latest.json"}
    promoted = remote_result(ended("configure", "promote", store=store, **pointer))
    assert promoted is not None
    assert (promoted.bundle, promoted.current, promoted.note) == (bundle, bundle, "the new model is the current model")
    assert promoted.numbers["int8"]["AP"] == 0.3


def test_a_retraining_on_unchanged_data_says_which_model_stays(store: str) -> None:
    current, latest = f"{store}/models/yolov5n-r7/0.9", f"{store}/models/yolov5n-r7/latest.json"
    Place.of(latest).write(json.dumps({"bundle": current}).encode())
    write_note(Place.of(store), RUN_ID, {"name": "one", "index": "", "latest": latest})
    result = remote_result(ended("configure", store=store, pointer="minio://d/latest.json"))
    assert result is not None and (result.bundle, result.current) == ("", current)
    assert result.note == "unchanged: the current model was trained on this data"


@pytest.mark.parametrize(
    "run",
    [
        ended(*TRAINING, state="FAILED", store="minio://s"),
        ended(*TRAINING, state="RUNNING", store="minio://s"),
        ended("configure", "evaluate", store="minio://s"),
    ],
)
def test_what_publishes_nothing_has_no_result(run: RemoteRun) -> None:
    assert remote_result(run) is None
