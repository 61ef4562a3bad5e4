"""The retraining pipeline as it is compiled: how it is wired; and run by kfp with steps that do nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeyolo.catalogue import DETECTOR_RETRAINING, DETECTOR_TRAINING, STEPS
from kubeyolo.compiled.pipeline import CompiledPipeline

pytest.importorskip("kfp")

FAKE = Path(__file__).resolve().parents[1] / "runs" / "fake"


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    return dict(next(yaml.safe_load_all(CompiledPipeline.named(DETECTOR_RETRAINING).text)))


@pytest.fixture(scope="module")
def outer(compiled: dict[str, Any]) -> dict[str, Any]:
    """Return the first task, and the group of the others."""
    return dict(compiled["root"]["dag"]["tasks"])


@pytest.fixture(scope="module")
def tasks(compiled: dict[str, Any], outer: dict[str, Any]) -> dict[str, Any]:
    """Return the tasks that are there for changed data alone."""
    (group,) = (task for name, task in outer.items() if name != "configure")
    return dict(compiled["components"][group["componentRef"]["name"]]["dag"]["tasks"])


def parameters(task: dict[str, Any]) -> dict[str, Any]:
    return dict(task["inputs"]["parameters"])


def test_without_changed_data_there_is_the_first_task_alone(outer: dict[str, Any], tasks: dict[str, Any]) -> None:
    assert len(outer) == 2
    (group,) = (task for name, task in outer.items() if name != "configure")
    condition = group["triggerPolicy"]["condition"]
    assert condition == "inputs.parameter_values['pipelinechannel--configure-data'] != ''"
    assert group["dependentTasks"] == ["configure"]
    assert {name.replace("-", "_") for name in tasks} == {*STEPS} - {"configure", "publish"}


def test_what_moves_the_pointer_is_never_taken_from_the_cache(tasks: dict[str, Any]) -> None:
    cached = {name for name, task in tasks.items() if task["cachingOptions"] == {"enableCache": True}}
    assert cached == set(tasks) - {"promote"}


def test_nothing_is_promoted_before_the_gates_and_the_evaluation_of_the_current_model(tasks: dict[str, Any]) -> None:
    assert {"evaluate", "evaluate-current", "quantize"} <= set(tasks["promote"]["dependentTasks"])
    # A model that cannot be compared is refused before the training begins.
    assert ("evaluate_current", "pretrain_backbone") in CompiledPipeline.named(DETECTOR_RETRAINING).edges
    sources = {
        name: value["taskOutputParameter"]
        for name, value in parameters(tasks["promote"]).items()
        if "taskOutputParameter" in value
    }
    assert {name: (one["producerTask"], one["outputParameterKey"]) for name, one in sources.items()} == {
        "bundle": ("quantize", "bundle"),
        "evaluation": ("evaluate", "record"),
        "training": ("train", "record"),
        "current": ("evaluate-current", "record"),
        "dataset": ("validate-dataset", "dataset"),
    }
    # The current model is judged by the settings that the new one is judged by.
    assert set(STEPS["evaluate_current"].reads) <= set(STEPS["promote"].reads)


def test_its_steps_are_wired_as_those_of_the_training(tasks: dict[str, Any]) -> None:
    training = next(yaml.safe_load_all(CompiledPipeline.named(DETECTOR_TRAINING).text))["root"]["dag"]["tasks"]
    for name, task in training.items():
        if name in ("configure", "publish"):
            continue
        assert tasks[name].get("retryPolicy") == task.get("retryPolicy"), name
        ours = parameters(tasks[name])
        channel = f"pipelinechannel--configure-{name.replace('-', '_')}"
        assert ours.pop("settings") == {"componentInputParameter": channel}
        assert ours == {key: value for key, value in parameters(task).items() if key != "settings"}, name
    # The current model is evaluated by ONNX alone.
    ours, others = (
        CompiledPipeline.named(DETECTOR_RETRAINING).image_names,
        CompiledPipeline.named(DETECTOR_TRAINING).image_names,
    )
    assert set(ours) - set(others) == {"kubeyolo-evaluate-onnx"} and set(others) <= set(ours)


@pytest.mark.parametrize(("data", "end"), [("", ""), ("minio://data/new", ""), ("minio://data/new", "work")])
def test_kfp_runs_the_steps_for_changed_data_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, end: str
) -> None:
    from kfp import components, local

    store = tmp_path / "store"
    store.mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(FAKE), str(FAKE.parents[2]))))
    monkeypatch.setenv("FAKE_DATA", data)
    monkeypatch.setenv("FAKE_STEP", "promote" if end else "")
    monkeypatch.setenv("FAKE_END", end)
    text = CompiledPipeline.named(DETECTOR_RETRAINING).text.replace("kubeyolo.steps.component", "kubeyolo_fake_steps")
    # kfp's local runner takes a named output in a condition for a parameter, but knows this spelling of it.
    text = text.replace("pipelinechannel--configure-data", "pipelinechannel--configure--data")
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))
    pipeline = components.load_component_from_text(text)
    if end:
        with pytest.raises(RuntimeError, match="promote"):
            pipeline(pointer="minio://data/latest.json", store=str(store))
    else:
        pipeline(pointer="minio://data/latest.json", store=str(store))
    calls = (store / "calls.log").read_text().split()
    expected = CompiledPipeline(text).tasks if data else ("configure",)
    assert sorted(calls) == sorted(expected)
    assert calls[:3] == ["configure", "validate_dataset", "evaluate_current"][: len(expected)]
