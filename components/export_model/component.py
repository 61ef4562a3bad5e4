"""The step export_model as a Kubeflow component."""

from typing import NamedTuple

from kfp import dsl

from components.step import step


@step("export_model")
def export_model(
    settings: dict,
    bundle: str,
    dataset: str,
    exported_detector: dsl.Output[dsl.Model],
    export_report: dsl.Output[dsl.HTML],
) -> NamedTuple("Outputs", [("bundle", str), ("record", str)]):
    """Write the trained network as MINDIR and ONNX."""
    from kubeyolo.steps.component import export_model as run

    return run(
        settings=settings,
        bundle=bundle,
        dataset=dataset,
        exported_detector=exported_detector,
        export_report=export_report,
    )
