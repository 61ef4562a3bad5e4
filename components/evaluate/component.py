"""The step evaluate as a Kubeflow component."""

from typing import NamedTuple

from kfp import dsl

from components.step import step


@step("evaluate")
def evaluate(
    settings: dict,
    bundle: str,
    dataset: str,
    evaluation_report: dsl.Output[dsl.HTML],
    confusion_matrix: dsl.Output[dsl.ClassificationMetrics],
) -> NamedTuple("Outputs", [("record", str)]):
    """Compute the COCO metrics of a network in a bundle."""
    from kubeyolo.steps.component import evaluate as run

    return run(
        settings=settings,
        bundle=bundle,
        dataset=dataset,
        evaluation_report=evaluation_report,
        confusion_matrix=confusion_matrix,
    )
