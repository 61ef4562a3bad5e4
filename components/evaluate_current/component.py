"""The step evaluate_current as a Kubeflow component."""

from typing import NamedTuple

from kfp import dsl

from components.step import step


@step("evaluate_current")
def evaluate_current(
    settings: dict,
    dataset: str,
    current_model_report: dsl.Output[dsl.HTML],
) -> NamedTuple("Outputs", [("record", str)]):
    """Evaluate the current model on the new data."""
    from kubeyolo.steps.component import evaluate_current as run

    return run(
        settings=settings,
        dataset=dataset,
        current_model_report=current_model_report,
    )
