"""Evaluates a bundle, and a second bundle to compare it with, on a data set: the basis of the gate in CI."""

from __future__ import annotations

import copy

from kfp import dsl

from components.configure.component import configure_evaluation
from components.evaluate.component import evaluate
from components.step import renamed
from components.validate_dataset.component import validate_dataset
from kubeyolo.catalogue import MODEL_EVALUATION
from pipelines.form import form_of
from pipelines.pod import prepare

evaluate_baseline = renamed(copy.copy(evaluate), "evaluate-baseline")


@dsl.pipeline(name=MODEL_EVALUATION)
@form_of(configure_evaluation)
def model_evaluation(**form: str) -> None:
    """Evaluate a bundle, and a baseline if it is given, on the same images."""
    configured = configure_evaluation(**form)
    settings = configured.outputs
    validated = validate_dataset(settings=settings["validate_dataset"])
    dataset = validated.outputs["dataset"]
    evaluated = evaluate(settings=settings["evaluate"], bundle=settings["bundle"], dataset=dataset)
    with dsl.If(form["baseline"] != "", name="baseline"):
        compared = evaluate_baseline(
            settings=settings["evaluate_baseline"], bundle=settings["baseline"], dataset=dataset
        )
    for task in (configured, validated, evaluated, compared):
        prepare(task)
