"""The training pipeline as it is compiled: how its tasks are wired."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kubeyolo.compiled.pipeline import CompiledPipeline


@pytest.fixture(scope="module")
def tasks() -> dict[str, Any]:
    return dict(next(yaml.safe_load_all(CompiledPipeline.named().text))["root"]["dag"]["tasks"])


def source(task: dict[str, Any], parameter: str) -> str:
    """Return where a parameter is from, as ``task.output``."""
    found = task["inputs"]["parameters"][parameter]["taskOutputParameter"]
    return f"{found['producerTask']}.{found['outputParameterKey']}"


def test_what_waits_for_what() -> None:
    assert set(CompiledPipeline.named().edges) == {
        ("configure", "validate_dataset"),
        ("validate_dataset", "pretrain_backbone"),
        ("pretrain_backbone", "train"),
        ("train", "evaluate"),
        ("train", "export_model"),
        ("export_model", "quantize"),
        ("evaluate", "publish"),
        ("quantize", "publish"),
    }


def test_bundles_and_records_go_from_step_to_step(tasks: dict[str, Any]) -> None:
    assert source(tasks["train"], "backbone") == "pretrain-backbone.backbone"
    assert source(tasks["evaluate"], "bundle") == source(tasks["export-model"], "bundle") == "train.bundle"
    assert source(tasks["quantize"], "bundle") == "export-model.bundle"
    assert source(tasks["publish"], "bundle") == "quantize.bundle"
    assert source(tasks["publish"], "training") == "train.record"
    for name in ("pretrain-backbone", "train", "evaluate", "export-model", "quantize"):
        assert source(tasks[name], "dataset") == "validate-dataset.dataset", name


def test_nothing_is_published_before_both_gates(tasks: dict[str, Any]) -> None:
    assert {"evaluate", "quantize"} <= set(tasks["publish"]["dependentTasks"])
    assert source(tasks["publish"], "evaluation") == "evaluate.record"


def test_no_condition_and_no_group_is_used(tasks: dict[str, Any]) -> None:
    # A condition on a named output is skipped without a word by kfp's local runner.
    assert not [name for name, task in tasks.items() if "triggerPolicy" in task]
    components = next(yaml.safe_load_all(CompiledPipeline.named().text))["components"].values()
    assert not [component for component in components if "dag" in component]
