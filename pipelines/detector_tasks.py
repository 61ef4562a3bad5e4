"""The tasks that training and retraining have in common: from a stored data set to a quantized detector."""

from __future__ import annotations

from typing import NamedTuple

from kfp.dsl import PipelineTask

from components.evaluate.component import evaluate
from components.export_model.component import export_model
from components.pretrain_backbone.component import pretrain_backbone
from components.quantize.component import quantize
from components.train.component import train
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
