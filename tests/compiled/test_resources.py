"""Requests and limits of the pods in a compiled pipeline, and their changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from kubeyolo.compiled.pipeline import CompiledPipeline, pipeline_names
from kubeyolo.compiled.resources import MEMORY_LIMITS, doubled, quantity
from kubeyolo.errors import InputError

PLANNED = {
    "configure": ("100m", "2Gi", "256Mi"),
    "validate_dataset": ("250m", "8Gi", "1Gi"),
    "evaluate_current": ("250m", "16Gi", "1Gi"),
    "pretrain_backbone": ("250m", "16Gi", "1Gi"),
    "train": ("250m", "16Gi", "1Gi"),
    "evaluate": ("250m", "16Gi", "1Gi"),
    "evaluate_baseline": ("250m", "16Gi", "1Gi"),
    "export_model": ("250m", "16Gi", "1Gi"),
    "quantize": ("250m", "16Gi", "1Gi"),
    "publish": ("100m", "2Gi", "256Mi"),
    "promote": ("100m", "2Gi", "256Mi"),
}


def containers_of(pipeline: CompiledPipeline) -> dict[str, dict[str, Any]]:
    executors = next(yaml.safe_load_all(pipeline.text))["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-").replace("-", "_"): facts["container"] for name, facts in executors.items()}


def limits_told(pipeline: CompiledPipeline) -> dict[str, str]:
    """Return the memory limits that the first step is told."""
    (text,) = [each["value"] for each in containers_of(pipeline)["configure"]["env"] if each["name"] == MEMORY_LIMITS]
    return dict(json.loads(text))


@pytest.mark.parametrize("name", pipeline_names())
def test_every_task_has_requests_and_limits_in_the_fields_that_kubeflow_reads(name: str) -> None:
    pipeline = CompiledPipeline.named(name)
    found = containers_of(pipeline)
    assert set(found) == set(pipeline.tasks)
    for task, container in found.items():
        cpu, memory, request = PLANNED[task]
        assert {key: value for key, value in container["resources"].items() if key.startswith("resource")} == {
            "resourceCpuRequest": cpu,
            "resourceMemoryLimit": memory,
            "resourceMemoryRequest": request,
        }, task
    assert limits_told(pipeline) == {task: PLANNED[task][1] for task in pipeline.tasks}


@pytest.mark.parametrize("name", pipeline_names())
def test_without_changes_the_resources_are_bound_to_the_same_text(name: str) -> None:
    assert CompiledPipeline.named(name).bind_resources({}).text == CompiledPipeline.named(name).text


def test_a_change_replaces_the_resources_of_its_step_alone_and_the_first_step_is_told() -> None:
    before = CompiledPipeline.named()
    after = before.bind_resources({"train.memory": "32Gi", "train.cpu": "4", "evaluate.cpu_limit": "200m"})
    changed = containers_of(after)
    assert changed["train"]["resources"] == {
        "resourceCpuRequest": "4",
        "resourceMemoryLimit": "32Gi",
        "resourceMemoryRequest": "32Gi",
        "cpuRequest": 4.0,
        "memoryLimit": 32 * 2**30 / 1e9,
        "memoryRequest": 32 * 2**30 / 1e9,
    }
    # A request is never above its limit.
    assert (after.resources["evaluate"].cpu, after.resources["evaluate"].cpu_limit) == ("200m", "200m")
    assert changed["evaluate"]["resources"]["cpuLimit"] == 0.2
    assert limits_told(after) == limits_told(before) | {"train": "32Gi"} == after.memory_limits
    for task, container in containers_of(before).items():
        if task not in ("train", "evaluate", "configure"):
            assert changed[task] == container
    lower = after.bind_resources({"train.memory": "20Gi", "train.memory_request": "2Gi"}).resources["train"]
    assert (lower.memory, lower.memory_request, lower.cpu) == ("20Gi", "2Gi", "4")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trian.memory": "1Gi"}, "unknown step 'trian' .*; did you mean 'train'"),
        ({"promote.memory": "1Gi"}, "unknown step 'promote'"),
        ({"train.memroy": "1Gi"}, "unknown resource 'memroy' .*; did you mean 'memory'"),
        ({"train": "1Gi"}, "resources train=1Gi: expected STEP.RESOURCE=QUANTITY, such as train.memory=16Gi"),
        ({"train.memory": "16"}, "train.memory=16: expected memory from 64Mi to 64Ti, such as 16Gi"),
        ({"train.memory": "16GB"}, "'16GB' is not a quantity of memory; write it as 16Gi"),
        ({"train.memory": ""}, "'' is not a quantity of memory"),
        ({"train.memory": "-1Gi"}, "'-1Gi' is not a quantity"),
        ({"train.memory_request": "1.5Gi"}, "'1.5Gi' is not a quantity of memory_request"),
        ({"train.cpu": "0"}, "train.cpu=0: expected cpu from 1m to 10000, such as 2 or 500m"),
        ({"train.cpu": "1.5m"}, "'1.5m' is not a quantity of cpu; write it as 2 or 500m"),
        ({"train.memory_request": "32Gi"}, "train.memory_request = 32Gi is more than train.memory = 16Gi"),
        ({"train.cpu": "4", "train.cpu_limit": "2"}, "train.cpu = 4 is more than train.cpu_limit = 2"),
    ],
)
def test_resources_that_make_no_sense_are_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CompiledPipeline.named().bind_resources(changes)


@pytest.mark.parametrize(("memory", "twice"), [("16Gi", "32Gi"), ("1500M", "3000M"), ("4294967296", "8589934592")])
def test_twice_a_quantity_of_memory_is_a_quantity(memory: str, twice: str) -> None:
    assert doubled(memory) == twice and quantity(twice) == 2 * quantity(memory)
    # Kubernetes also writes fractions.
    assert doubled("1.5Gi") == "3072Mi"
