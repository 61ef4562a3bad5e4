"""The evaluation pipeline as it is compiled: what its tasks are called, what they run, and on what."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kubeyolo.catalogue import MODEL_EVALUATION
from kubeyolo.compiled.pipeline import CompiledPipeline


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    return dict(next(yaml.safe_load_all(CompiledPipeline.named(MODEL_EVALUATION).text)))


def test_the_baseline_is_evaluated_by_the_same_program_under_a_name_of_its_own(compiled: dict[str, Any]) -> None:
    assert sorted(compiled["root"]["dag"]["tasks"]) == ["condition-1", "configure", "evaluate", "validate-dataset"]
    (baseline,) = compiled["components"]["comp-condition-1"]["dag"]["tasks"]
    assert baseline == "evaluate-baseline"
    programs = compiled["deploymentSpec"]["executors"]
    assert programs["exec-evaluate-baseline"] == programs["exec-evaluate"]
    one, other = (compiled["components"][f"comp-{name}"] for name in ("evaluate", baseline))
    assert {**one, "executorLabel": ""} == {**other, "executorLabel": ""}


def test_the_baseline_is_evaluated_where_the_form_names_one(compiled: dict[str, Any]) -> None:
    group = compiled["root"]["dag"]["tasks"]["condition-1"]
    assert group["triggerPolicy"]["condition"] == "inputs.parameter_values['pipelinechannel--baseline'] != ''"


def test_both_bundles_are_those_that_configure_has_looked_at(compiled: dict[str, Any]) -> None:
    """A pointer may move while a run is under way: what is evaluated is a reference with a digest."""
    outer = compiled["root"]["dag"]["tasks"]
    bundle = outer["evaluate"]["inputs"]["parameters"]["bundle"]
    assert bundle == {"taskOutputParameter": {"outputParameterKey": "bundle", "producerTask": "configure"}}
    (baseline,) = compiled["components"]["comp-condition-1"]["dag"]["tasks"].values()
    channel = baseline["inputs"]["parameters"]["bundle"]["componentInputParameter"]
    assert outer["condition-1"]["inputs"]["parameters"][channel] == {
        "taskOutputParameter": {"outputParameterKey": "baseline", "producerTask": "configure"}
    }
