"""The step publish as a Kubeflow component."""

from typing import NamedTuple

from kfp import dsl

from components.step import step


@step("publish")
def publish(
    settings: dict,
    bundle: str,
    evaluation: str,
    training: str,
    published_detector: dsl.Output[dsl.Model],
    model_card: dsl.Output[dsl.Markdown],
    summary: dsl.Output[dsl.Metrics],
) -> NamedTuple("Outputs", [("bundle", str), ("record", str)]):
    """Publish the bundle under its version."""
    from kubeyolo.steps.component import publish as run

    return run(
        settings=settings,
        bundle=bundle,
        evaluation=evaluation,
        training=training,
        published_detector=published_detector,
        model_card=model_card,
        summary=summary,
    )
