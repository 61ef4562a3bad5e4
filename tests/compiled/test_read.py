"""What a compiled pipeline says: its fields, its tasks, and which waits for which."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kubeyolo.catalogue import DETECTOR_RETRAINING, DETECTOR_TRAINING, MODEL_EVALUATION
from kubeyolo.compiled.pipeline import CompiledPipeline, pipeline_names
from kubeyolo.errors import InputError


def compiled(root: dict[str, Any], groups: dict[str, dict[str, Any]] | None = None, **more: Any) -> str:
    """Return a pipeline of tasks that wait for others by name; ``comp-<group>`` has the tasks of a group."""

    def graph(tasks: dict[str, list[str]]) -> dict[str, Any]:
        return {
            "dag": {
                "tasks": {
                    name: {"componentRef": {"name": f"comp-{name}"}, **({"dependentTasks": before} if before else {})}
                    for name, before in tasks.items()
                }
            }
        }

    found = {f"comp-{name}": graph(tasks) for name, tasks in (groups or {}).items()}
    names = [name for tasks in (root, *(groups or {}).values()) for name in tasks]
    leaves = {f"comp-{name}": {"executorLabel": f"exec-{name}"} for name in names if f"comp-{name}" not in found}
    return yaml.safe_dump({"root": graph(root) | more, "components": found | leaves})


def test_every_pipeline_can_be_read_by_its_name_and_no_other() -> None:
    assert pipeline_names() == (DETECTOR_RETRAINING, DETECTOR_TRAINING, MODEL_EVALUATION)
    assert CompiledPipeline.named().text == CompiledPipeline.named(DETECTOR_TRAINING).text
    with pytest.raises(InputError, match="unknown pipeline 'detector-trainin'; did you mean 'detector-training'"):
        CompiledPipeline.named("detector-trainin")


def test_fields_have_type_description_default_and_choices() -> None:
    parameters = {"model": {"parameterType": "STRING", "defaultValue": "a", "literals": ["a", "b"]}, "data": {}}
    text = compiled({"one": []}, inputDefinitions={"parameters": parameters})
    assert CompiledPipeline(text).fields == parameters
    assert CompiledPipeline(compiled({"one": []})).fields == {}
    # Who changes what is returned changes nothing for the next who reads.
    pipeline = CompiledPipeline(text)
    pipeline.fields["data"]["defaultValue"] = "x"
    assert pipeline.fields == parameters


def test_tasks_are_named_as_steps_without_groups() -> None:
    text = compiled({"first-step": [], "condition-1": ["first-step"]}, {"condition-1": {"second-step": []}})
    assert CompiledPipeline(text).tasks == ("first_step", "second_step")


def test_a_way_by_a_third_task_is_left_out() -> None:
    text = compiled({"a": [], "b": ["a"], "c": ["a", "b"], "d": ["a", "c", "b"]})
    assert CompiledPipeline(text).edges == (("a", "b"), ("b", "c"), ("c", "d"))


def test_two_ways_of_equal_length_both_stay() -> None:
    text = compiled({"a": [], "b": ["a"], "c": ["a"], "d": ["a", "b", "c"]})
    assert set(CompiledPipeline(text).edges) == {("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")}


def test_tasks_of_a_condition_wait_for_what_the_condition_waits_for() -> None:
    text = compiled(
        {"a": [], "condition-1": ["a"], "last": ["condition-1"]},
        {"condition-1": {"b": [], "condition-2": ["b"], "c": []}, "condition-2": {"d": []}},
    )
    assert set(CompiledPipeline(text).edges) == {("a", "b"), ("a", "c"), ("b", "d"), ("d", "last"), ("c", "last")}


@pytest.mark.parametrize("name", pipeline_names())
def test_one_task_waits_for_nothing_and_every_other_for_a_task_of_the_pipeline(name: str) -> None:
    names, edges = CompiledPipeline.named(name).tasks, CompiledPipeline.named(name).edges
    assert {before for before, _ in edges} | {after for _, after in edges} == set(names)
    assert {task for task in names if task not in {after for _, after in edges}} == {"configure"}
    assert len(set(edges)) == len(edges)
