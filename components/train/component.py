"""The step train as a Kubeflow component."""

from typing import NamedTuple

from kfp import dsl

from components.step import step


@step("train")
def train(
    settings: dict,
    dataset: str,
    backbone: str,
    trained_detector: dsl.Output[dsl.Model],
    training_curves: dsl.Output[dsl.HTML],
) -> NamedTuple("Outputs", [("bundle", str), ("record", str)]):
    """Train the detector; write checkpoints to the store, and continue from the newest checkpoint."""
    from kubeyolo.steps.component import train as run

    return run(
        settings=settings,
        dataset=dataset,
        backbone=backbone,
        trained_detector=trained_detector,
        training_curves=training_curves,
    )
