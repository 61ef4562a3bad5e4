"""Trains a detector again if its data set has changed, and publishes it if it is not worse than the current model."""

from __future__ import annotations

from kfp import dsl

from components.configure.component import configure_retraining
from components.evaluate_current.component import evaluate_current
from components.promote.component import promote
from components.validate_dataset.component import validate_dataset
from kubeyolo.catalogue import DETECTOR_RETRAINING
from pipelines.detector_training import detector_tasks
from pipelines.form import form_of
from pipelines.pod import prepare


@dsl.pipeline(name=DETECTOR_RETRAINING)
@form_of(configure_retraining)
def detector_retraining(**form: str) -> None:
    """Train if the data set that a pointer names has changed; the new model becomes current unless it is worse."""
    configured = configure_retraining(**form)
    prepare(configured)
    # The URI is empty if the data set has not changed; the run then succeeds without further steps.
    with dsl.If(configured.outputs["data"] != "", name="changed-data"):
        validated = validate_dataset(settings=configured.outputs["validate_dataset"])
        dataset = validated.outputs["dataset"]
        current = evaluate_current(settings=configured.outputs["evaluate_current"], dataset=dataset)
        tasks = detector_tasks(configured, validated)
        # If the models cannot be compared, the run fails before the training starts.
        tasks.pretrained.after(current)
        promoted = promote(
            settings=configured.outputs["promote"],
            bundle=tasks.quantized.outputs["bundle"],
            evaluation=tasks.evaluated.outputs["record"],
            training=tasks.trained.outputs["record"],
            current=current.outputs["record"],
            dataset=dataset,
        )
        for task in (validated, current, promoted):
            prepare(task)
