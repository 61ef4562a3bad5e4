"""The retraining pipeline as it is compiled: wired, described; and run by kfp with steps that do nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeyolo.runs.bind import DETECTOR_TRAINING, image_names, pipeline_text
from kubeyolo.runs.folder import STEPS

pytest.importorskip("kfp")

NAME = "detector-retraining"
FAKE = Path(__file__).resolve().parents[1] / "runs" / "fake"


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    return dict(next(yaml.safe_load_all(pipeline_text(NAME))))


def dag(compiled: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    return dict(compiled["components"][task["componentRef"]["name"]]["dag"]["tasks"])


@pytest.fixture(scope="module")
def outer(compiled: dict[str, Any]) -> dict[str, Any]:
    """Return the tasks within the exit handler: the first one, and the group of the others."""
    (group,) = (task for name, task in compiled["root"]["dag"]["tasks"].items() if name != "stop-training")
    return dag(compiled, group)


@pytest.fixture(scope="module")
def tasks(compiled: dict[str, Any], outer: dict[str, Any]) -> dict[str, Any]:
    """Return the tasks that are there for changed data alone."""
    (group,) = (task for name, task in outer.items() if name != "read-pointer")
    return dag(compiled, group)


def parameters(task: dict[str, Any]) -> dict[str, Any]:
    return dict(task["inputs"]["parameters"])


def test_without_changed_data_there_is_the_first_task_alone(outer: dict[str, Any], tasks: dict[str, Any]) -> None:
    assert len(outer) == 2
    (group,) = (task for name, task in outer.items() if name != "read-pointer")
    condition = group["triggerPolicy"]["condition"]
    assert condition == "inputs.parameter_values['pipelinechannel--read-pointer-data'] != ''"
    expected = {*STEPS, "evaluate_in_use", "promote"} - {"publish"}
    assert {name.replace("-", "_") for name in tasks} == expected


def test_what_pointers_name_is_never_taken_from_the_cache(outer: dict[str, Any], tasks: dict[str, Any]) -> None:
    assert outer["read-pointer"]["cachingOptions"] == tasks["promote"]["cachingOptions"] == {}
    cached = {name for name, task in tasks.items() if task["cachingOptions"] == {"enableCache": True}}
    assert cached == set(tasks) - {"promote"}
    assert parameters(outer["read-pointer"])["run_id"]["runtimeValue"]["constant"] == "{{$.pipeline_job_uuid}}"


def test_nothing_is_promoted_before_the_gates_and_the_evaluation_of_the_model_in_use(tasks: dict[str, Any]) -> None:
    needed = {"evaluate", "evaluate-in-use", "quantize", "validate-dataset"}
    assert set(tasks["promote"]["dependentTasks"]) == needed
    assert "evaluate-in-use" in tasks["pretrain-backbone"]["dependentTasks"]
    settings = {
        name: parameters(tasks[name])["evaluate_overrides"] for name in ("evaluate-in-use", "quantize", "promote")
    }
    assert len({json.dumps(value) for value in settings.values()}) == 1


def test_its_steps_are_wired_as_those_of_the_training(compiled: dict[str, Any], tasks: dict[str, Any]) -> None:
    training = next(yaml.safe_load_all(pipeline_text(DETECTOR_TRAINING)))
    (group,) = (task for name, task in training["root"]["dag"]["tasks"].items() if name != "stop-training")
    for name, task in dag(training, group).items():
        if name in ("publish", "validate-dataset"):
            continue
        assert tasks[name].get("retryPolicy") == task.get("retryPolicy"), name
        for key, value in parameters(task).items():
            if key != "run_name":
                assert parameters(tasks[name])[key] == value, (name, key)
    assert image_names(pipeline_text(NAME)) == image_names(pipeline_text(DETECTOR_TRAINING))


def test_every_parameter_has_a_description_and_the_name_it_has_in_the_training(compiled: dict[str, Any]) -> None:
    found = compiled["root"]["inputDefinitions"]["parameters"]
    assert [name for name, one in found.items() if not one.get("description")] == []
    assert [name for name, one in found.items() if not one.get("isOptional")] == ["pointer", "store"]
    training = next(yaml.safe_load_all(pipeline_text(DETECTOR_TRAINING)))["root"]["inputDefinitions"]["parameters"]
    assert set(training) - set(found) == {"data", "fingerprint", "run_name", "version"}
    for name in set(training) & set(found):
        assert found[name] == training[name], name


def test_what_training_leaves_is_removed_whatever_becomes_of_the_steps(compiled: dict[str, Any]) -> None:
    tasks = compiled["root"]["dag"]["tasks"]
    assert len(tasks) == 2
    stop = tasks["stop-training"]
    assert stop["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert set(stop["dependentTasks"]) == set(tasks) - {"stop-training"}


@pytest.mark.parametrize(("data", "end"), [("", ""), ("minio://data/new", ""), ("minio://data/new", "work")])
def test_kfp_runs_the_steps_for_changed_data_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, end: str
) -> None:
    from kfp import components, local

    store = tmp_path / "store"
    store.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    monkeypatch.setenv("FAKE_DATA", data)
    monkeypatch.setenv("FAKE_STEP", "promote" if end else "")
    monkeypatch.setenv("FAKE_END", end)
    text = pipeline_text(NAME).replace("kubeyolo.steps.component", "kubeyolo_fake_steps")
    # kfp's local runner takes a named output in a condition for a parameter, but knows this spelling of it.
    text = text.replace("pipelinechannel--read-pointer-data", "pipelinechannel--read-pointer--data")
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))
    pipeline = components.load_component_from_text(text)
    if end:
        with pytest.raises(RuntimeError, match="promote"):
            pipeline(pointer="minio://data/latest.json", store=str(store))
    else:
        pipeline(pointer="minio://data/latest.json", store=str(store))
    calls = (store / "calls.log").read_text().split()
    assert calls[0] == "read_pointer"
    steps = calls[1:]
    assert steps[:2] == (["validate_dataset", "evaluate_in_use"] if data else [])
    assert sorted(steps) == sorted({*STEPS, "evaluate_in_use", "promote"} - {"publish"} if data else [])
