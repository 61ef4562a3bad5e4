"""The tasks that training and retraining have in common: from a stored data set to a quantized detector."""

from typing import NamedTuple

from kfp.dsl import PipelineTask

from components.evaluate.component import evaluate
from components.export_model.component import export_model
from components.pretrain_backbone.component import pretrain_backbone
from components.quantize.component import quantize
from components.train.component import train
from pipelines.surroundings import survive_lost_pods


class TrainingTasks(NamedTuple):
    """The tasks that end with a trained bundle."""

    pretrained: PipelineTask
    trained: PipelineTask


class MeasuringTasks(NamedTuple):
    """The tasks that measure a trained bundle and derive others from it."""

    evaluated: PipelineTask
    exported: PipelineTask
    quantized: PipelineTask


def training_tasks(
    validated: PipelineTask,
    *,
    store: str,
    model: str,
    image_size: int,
    per_batch_size: int,
    max_epoch: int,
    optimizer: str,
    lr: float,
    processes: int,
    seed: int,
    classification: str,
    classification_fingerprint: str,
    data_overrides: dict,
    augment_overrides: dict,
    pretrain_overrides: dict,
    train_overrides: dict,
    launcher: str,
    cluster: dict,
    code_digest: str,
) -> TrainingTasks:
    """Pretrain and train on a validated data set; the parameters are those of the pipelines."""
    dataset, digest = validated.outputs["dataset"], validated.outputs["digest"]
    pretrained = pretrain_backbone(
        dataset=dataset,
        dataset_digest=digest,
        store=store,
        model=model,
        classification=classification,
        classification_fingerprint=classification_fingerprint,
        pretrain_overrides=pretrain_overrides,
        augment_overrides=augment_overrides,
        train_overrides=train_overrides,
        seed=seed,
        code_digest=code_digest,
    )
    trained = train(
        dataset=dataset,
        dataset_digest=digest,
        backbone=pretrained.outputs["backbone"],
        store=store,
        model=model,
        image_size=image_size,
        per_batch_size=per_batch_size,
        max_epoch=max_epoch,
        optimizer=optimizer,
        lr=lr,
        processes=processes,
        seed=seed,
        data_overrides=data_overrides,
        augment_overrides=augment_overrides,
        train_overrides=train_overrides,
        launcher=launcher,
        cluster=cluster,
        code_digest=code_digest,
    )
    survive_lost_pods(trained)
    return TrainingTasks(pretrained, trained)


def measuring_tasks(
    validated: PipelineTask,
    trained: PipelineTask,
    *,
    store: str,
    run_name: str,
    min_ap: float,
    max_drop: float,
    evaluate_overrides: dict,
    export_overrides: dict,
    quantize_overrides: dict,
    code_digest: str,
) -> MeasuringTasks:
    """Evaluate, export and quantize what was trained; the parameters are those of the pipelines."""
    common = {
        "dataset": validated.outputs["dataset"],
        "dataset_digest": validated.outputs["digest"],
        "store": store,
        "run_name": run_name,
        "evaluate_overrides": evaluate_overrides,
        "code_digest": code_digest,
    }
    bundle = trained.outputs["bundle"]
    evaluated = evaluate(bundle=bundle, min_ap=min_ap, runtime="mindspore", place="evaluate", **common)
    exported = export_model(bundle=bundle, export_overrides=export_overrides, **common)
    quantized = quantize(
        bundle=exported.outputs["bundle"], max_drop=max_drop, quantize_overrides=quantize_overrides, **common
    )
    return MeasuringTasks(evaluated, exported, quantized)
