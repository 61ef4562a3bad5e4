"""From a data set to a published int8 detector."""

from __future__ import annotations

from kfp import dsl

from components.configure.component import configure_training
from components.publish.component import publish
from components.validate_dataset.component import validate_dataset
from kubeyolo.catalogue import DETECTOR_TRAINING
from pipelines.detector_tasks import detector_tasks
from pipelines.form import form_of
from pipelines.pod import prepare


@dsl.pipeline(name=DETECTOR_TRAINING)
@form_of(configure_training)
def detector_training(**form: str) -> None:
    """Configure, validate, pretrain, train, evaluate, export, quantize and publish a detector."""
    configured = configure_training(**form)
    validated = validate_dataset(settings=configured.outputs["validate_dataset"])
    tasks = detector_tasks(configured, validated)
    # The record of the evaluation is an input, so that nothing is published that did not pass its gate.
    published = publish(
        settings=configured.outputs["publish"],
        bundle=tasks.quantized.outputs["bundle"],
        evaluation=tasks.evaluated.outputs["record"],
        training=tasks.trained.outputs["record"],
    )
    for task in (configured, validated, published):
        prepare(task)
