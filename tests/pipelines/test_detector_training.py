"""The training pipeline as it is compiled: fresh, described, wired, and never stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeyolo.runs.bind import pipeline_text
from kubeyolo.runs.folder import STEPS

pytest.importorskip("kfp")

from pipelines.compile import compile_all, stale


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    return dict(next(yaml.safe_load_all(pipeline_text())))


def tasks_of(compiled: dict[str, Any]) -> dict[str, Any]:
    """Return the tasks within the exit handler, which are the steps."""
    (group,) = (task for name, task in compiled["root"]["dag"]["tasks"].items() if name != "stop-training")
    return dict(compiled["components"][group["componentRef"]["name"]]["dag"]["tasks"])


def test_the_compiled_pipelines_are_fresh() -> None:
    assert stale() == [], "run `make pipelines`"


def test_compiling_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for one, other in zip(compile_all(tmp_path / "a"), compile_all(tmp_path / "b"), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_changed_pipeline_is_seen_as_stale(tmp_path: Path) -> None:
    paths = compile_all(tmp_path)
    paths[0].write_text(paths[0].read_text() + "\n")
    assert stale(tmp_path) == [paths[0].name]
    paths[0].unlink()
    assert stale(tmp_path) == [paths[0].name]


def test_its_tasks_are_the_steps_of_a_run(compiled: dict[str, Any]) -> None:
    assert sorted(name.replace("-", "_") for name in tasks_of(compiled)) == sorted(STEPS)


def test_nothing_is_published_before_both_gates(compiled: dict[str, Any]) -> None:
    tasks = tasks_of(compiled)
    assert set(tasks["publish"]["dependentTasks"]) == {"evaluate", "quantize"}
    assert set(tasks["quantize"]["dependentTasks"]) >= {"export-model"}
    assert "pretrain-backbone" in tasks["train"]["dependentTasks"]


def test_every_parameter_has_a_description_for_the_ui(compiled: dict[str, Any]) -> None:
    parameters = compiled["root"]["inputDefinitions"]["parameters"]
    assert [name for name, parameter in parameters.items() if not parameter.get("description")] == []
    assert [name for name, parameter in parameters.items() if not parameter.get("isOptional")] == ["data", "store"]


def test_every_step_has_the_digests_of_code_and_data_among_its_parameters(compiled: dict[str, Any]) -> None:
    for name, task in tasks_of(compiled).items():
        inputs = task["inputs"]["parameters"]
        assert inputs["code_digest"] == {"componentInputParameter": "pipelinechannel--code_digest"}, name
        if name == "validate-dataset":
            assert inputs["fingerprint"] == {"componentInputParameter": "pipelinechannel--fingerprint"}
        elif name != "publish":
            assert inputs["dataset_digest"]["taskOutputParameter"]["outputParameterKey"] == "digest", name
        assert task["cachingOptions"] == {"enableCache": True}, name


def test_every_step_hands_out_its_record_metrics_and_report(compiled: dict[str, Any]) -> None:
    for name in tasks_of(compiled):
        outputs = compiled["components"][f"comp-{name}"]["outputDefinitions"]
        assert "record" in outputs["parameters"], name
        kinds = {key: one["artifactType"]["schemaTitle"] for key, one in outputs["artifacts"].items()}
        drawn = {"confusion": "system.ClassificationMetrics"} if name == "evaluate" else {}
        assert kinds == {"metrics": "system.Metrics", "report": "system.HTML", **drawn}, name


def test_what_training_leaves_is_removed_whatever_becomes_of_the_steps(compiled: dict[str, Any]) -> None:
    tasks = compiled["root"]["dag"]["tasks"]
    assert len(tasks) == 2
    stop = tasks["stop-training"]
    assert stop["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert set(stop["dependentTasks"]) == set(tasks) - {"stop-training"}
    assert stop["cachingOptions"] == {}
    for name in ("launcher", "cluster"):
        assert stop["inputs"]["parameters"][name] == {"componentInputParameter": name}


def test_no_condition_is_used(compiled: dict[str, Any]) -> None:
    # A condition on a named output is skipped without a word by kfp's local runner.
    assert not [name for name, task in tasks_of(compiled).items() if "triggerPolicy" in task]
