"""From a data set to a published int8 detector."""

from __future__ import annotations

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import PipelineTask

from components.configure.component import configure_training
from components.evaluate.component import evaluate
from components.export_model.component import export_model
from components.pretrain_backbone.component import pretrain_backbone
from components.publish.component import publish
from components.quantize.component import quantize
from components.train.component import train
from components.validate_dataset.component import validate_dataset
from kubeyolo.catalogue import DETECTOR_TRAINING
from pipelines.form import form_of
from pipelines.pod import prepare


class DetectorTasks(NamedTuple):
    """The tasks between the validated data set and the published bundle."""

    pretrained: PipelineTask
    trained: PipelineTask
    evaluated: PipelineTask
    exported: PipelineTask
    quantized: PipelineTask


def detector_tasks(configured: PipelineTask, validated: PipelineTask) -> DetectorTasks:
    """Pretrain, train, evaluate, export and quantize on a validated data set."""
    settings, dataset = configured.outputs, validated.outputs["dataset"]
    pretrained = pretrain_backbone(settings=settings["pretrain_backbone"], dataset=dataset)
    trained = train(settings=settings["train"], dataset=dataset, backbone=pretrained.outputs["backbone"])
    evaluated = evaluate(settings=settings["evaluate"], bundle=trained.outputs["bundle"], dataset=dataset)
    exported = export_model(settings=settings["export_model"], bundle=trained.outputs["bundle"], dataset=dataset)
    quantized = quantize(settings=settings["quantize"], bundle=exported.outputs["bundle"], dataset=dataset)
    tasks = DetectorTasks(pretrained, trained, evaluated, exported, quantized)
    for task in tasks:
        prepare(task)
    return tasks


@dsl.pipeline(name=DETECTOR_TRAINING)
@form_of(configure_training)
def detector_training(**form: str) -> None:
    """Configure, validate, pretrain, train, evaluate, export, quantize and publish a detector."""
    configured = configure_training(**form)
    validated = validate_dataset(settings=configured.outputs["validate_dataset"])
    tasks = detector_tasks(configured, validated)
    # The record of the evaluation is an input, so that nothing is published if the evaluation fails its gate.
    published = publish(
        settings=configured.outputs["publish"],
        bundle=tasks.quantized.outputs["bundle"],
        evaluation=tasks.evaluated.outputs["record"],
        training=tasks.trained.outputs["record"],
    )
    for task in (configured, validated, published):
        prepare(task)
