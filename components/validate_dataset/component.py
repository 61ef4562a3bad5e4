"""The step validate_dataset as a Kubeflow component."""

from typing import NamedTuple

from kfp import dsl

from components.step import step


@step("validate_dataset")
def validate_dataset(
    settings: dict,
    validated_dataset: dsl.Output[dsl.Dataset],
    data_report: dsl.Output[dsl.HTML],
    data_findings: dsl.Output[dsl.Markdown],
) -> NamedTuple("Outputs", [("dataset", str), ("record", str)]):
    """Check and store the data set."""
    from kubeyolo.steps.component import validate_dataset as run

    return run(
        settings=settings,
        validated_dataset=validated_dataset,
        data_report=data_report,
        data_findings=data_findings,
    )
