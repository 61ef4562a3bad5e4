"""The evaluation pipeline as it is compiled: what its tasks are called, and what they run."""

from __future__ import annotations

import yaml

from kubeyolo.runs.bind import MODEL_EVALUATION, pipeline_text


def test_the_baseline_is_evaluated_by_the_same_program_under_a_name_of_its_own() -> None:
    compiled = next(yaml.safe_load_all(pipeline_text(MODEL_EVALUATION)))
    assert sorted(compiled["root"]["dag"]["tasks"]) == ["condition-1", "evaluate", "validate-dataset"]
    (baseline,) = compiled["components"]["comp-condition-1"]["dag"]["tasks"]
    assert baseline == "evaluate-baseline"
    programs = compiled["deploymentSpec"]["executors"]
    assert programs["exec-evaluate-baseline"] == programs["exec-evaluate"]
