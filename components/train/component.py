"""train as Kubeflow sees it."""

from typing import NamedTuple

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("train"), packages_to_install=[], install_kfp_package=False)
def train(
    dataset: str,
    dataset_digest: str,
    backbone: str,
    store: str,
    model: str,
    image_size: int,
    per_batch_size: int,
    max_epoch: int,
    optimizer: str,
    lr: float,
    processes: int,
    seed: int,
    data_overrides: dict,
    augment_overrides: dict,
    train_overrides: dict,
    launcher: str,
    cluster: dict,
    code_digest: str,
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
) -> NamedTuple("Outputs", [("bundle", str), ("record", str)]):
    """Train the detector; checkpoints go to the store while it runs, and the newest one is continued.

    Args:
        dataset: URI of the stored data set.
        dataset_digest: Digest of its content.
        backbone: URI of the bundle of a pretrained backbone, or empty.
        store: URI of the store that receives checkpoints and the bundle.
        model: Name of the detector.
        image_size: Side of the square training images, in pixels; 0 takes the preset's.
        per_batch_size: Images per process and step; 0 takes the preset's.
        max_epoch: Epochs; 0 takes the preset's.
        optimizer: sgd or adamw; empty takes the preset's.
        lr: Peak learning rate; 0 takes the preset's.
        processes: Data-parallel processes; 0 takes the preset's.
        seed: Seed of weights, order and augmentation; 0 takes the preset's.
        data_overrides: Values over those of the preset's section `data`.
        augment_overrides: Values over those of the preset's section `augment`.
        train_overrides: Values over those of the preset's section `train`.
        launcher: Where the processes run: local, in this step; volcano, in pods of their own.
        cluster: Settings of the launcher volcano, over those of its preset.
        code_digest: Digest of the library.
        metrics: Steps, last losses and speed.
        report: Curves and settings.

    Returns:
        bundle: URI of the bundle with the trained weights.
        record: URI of metrics.json.
    """
    from kubeyolo.steps.component import train as run

    return run(
        dataset=dataset,
        dataset_digest=dataset_digest,
        backbone=backbone,
        store=store,
        model=model,
        knobs={
            "image_size": image_size,
            "per_batch_size": per_batch_size,
            "max_epoch": max_epoch,
            "optimizer": optimizer,
            "lr": lr,
            "processes": processes,
            "seed": seed,
        },
        data_overrides=data_overrides,
        augment_overrides=augment_overrides,
        train_overrides=train_overrides,
        launcher=launcher,
        cluster=cluster,
        code_digest=code_digest,
        metrics=metrics,
        report=report,
    )
