"""The step promote as a Kubeflow component."""

from typing import NamedTuple

from kfp import dsl

from components.step import step


@step("promote")
def promote(
    settings: dict,
    bundle: str,
    evaluation: str,
    training: str,
    current: str,
    dataset: str,
    published_detector: dsl.Output[dsl.Model],
    model_card: dsl.Output[dsl.Markdown],
    summary: dsl.Output[dsl.Metrics],
) -> NamedTuple("Outputs", [("bundle", str), ("record", str)]):
    """Publish the bundle and make it the current model, unless it is worse."""
    from kubeyolo.steps.component import promote as run

    return run(
        settings=settings,
        bundle=bundle,
        evaluation=evaluation,
        training=training,
        current=current,
        dataset=dataset,
        published_detector=published_detector,
        model_card=model_card,
        summary=summary,
    )
