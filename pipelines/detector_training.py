"""From a COCO data set to a published int8 detector."""

from kfp import dsl

from components.publish.component import publish
from components.stop_training.component import stop_training
from components.validate_dataset.component import validate_dataset
from pipelines.detector_tasks import measuring_tasks, training_tasks
from pipelines.surroundings import give_surroundings

PRESET: dict = {}
"""No overrides: every value of the section is the preset's."""


@dsl.pipeline(name="detector-training", description="A COCO data set in, a gated int8 detector out.")
def detector_training(
    data: str,
    store: str,
    model: str = "yolov5n-r7",
    run_name: str = "detector-training",
    image_size: int = 0,
    per_batch_size: int = 0,
    max_epoch: int = 0,
    optimizer: str = "",
    lr: float = 0.0,
    processes: int = 0,
    seed: int = 0,
    min_ap: float = 0.0,
    max_drop: float = 0.0,
    version: str = "",
    classification: str = "",
    data_overrides: dict = PRESET,
    augment_overrides: dict = PRESET,
    pretrain_overrides: dict = PRESET,
    train_overrides: dict = PRESET,
    evaluate_overrides: dict = PRESET,
    export_overrides: dict = PRESET,
    quantize_overrides: dict = PRESET,
    fingerprint: str = "",
    classification_fingerprint: str = "",
    launcher: str = "local",
    cluster: dict = PRESET,
    code_digest: str = "",
) -> None:
    """Validate, pretrain, train, evaluate, export, quantize and publish a detector.

    Args:
        data: Folder or store URI of the COCO data set: annotations/<split>.json and <split>/ for train and val.
        store: URI of the store for data sets, checkpoints and bundles, such as minio://bucket/prefix.
        model: Name of the detector, such as yolov5n-r7.
        run_name: Name under which the run's results are stored.
        image_size: Side of the square training images, in pixels; 0 takes the preset's.
        per_batch_size: Images per process and step; 0 takes the preset's.
        max_epoch: Epochs; 0 takes the preset's.
        optimizer: sgd or adamw; empty takes the preset's.
        lr: Peak learning rate; 0 takes the preset's.
        processes: Data-parallel training processes; 0 takes the preset's.
        seed: Seed of weights, order and augmentation; 0 takes the preset's.
        min_ap: The run fails when AP (0 to 1) is below this; 0 takes the preset's.
        max_drop: The run fails when int8 loses more points of AP (AP x 100) than this; 0 takes the preset's.
        version: Version to publish under; empty makes one from the content.
        classification: Folder or store URI of images by class to pretrain on; empty takes crops of the objects.
        data_overrides: Values over the preset's section `data` (workers, cache), as JSON.
        augment_overrides: Values over the preset's section `augment` (mosaic, hsv_h, scale ...), as JSON.
        pretrain_overrides: Values over the preset's section `pretrain` (enabled, max_epoch ...), as JSON.
        train_overrides: Values over the preset's section `train` (warmup_epochs, ema_decay ...), as JSON.
        evaluate_overrides: Values over the preset's section `evaluate` (split, iou_threshold ...), as JSON.
        export_overrides: Values over the preset's section `export` (formats, batch_size ...), as JSON.
        quantize_overrides: Values over the preset's section `quantize` (calibration ...), as JSON.
        fingerprint: Digest of what lies at `data`; with it, changed data is never taken from the cache.
        classification_fingerprint: Digest of what lies at `classification`.
        launcher: Where training runs: local, in its step; volcano, in pods of their own.
        cluster: Settings of the launcher volcano over those of their preset (preset, queue, memory ...), as JSON.
        code_digest: Digest of the library; with it, results of other code are never taken from the cache.
    """
    # It runs whatever becomes of the others, when the run is terminated too. What is within an exit handler cannot be
    # an output of the pipeline: the records of the steps are their own outputs.
    stopped = stop_training(launcher=launcher, cluster=cluster)
    stopped.set_caching_options(False)
    with dsl.ExitHandler(stopped, name="steps"):
        validated = validate_dataset(data=data, store=store, fingerprint=fingerprint, code_digest=code_digest)
        training = training_tasks(
            validated,
            store=store,
            model=model,
            image_size=image_size,
            per_batch_size=per_batch_size,
            max_epoch=max_epoch,
            optimizer=optimizer,
            lr=lr,
            processes=processes,
            seed=seed,
            classification=classification,
            classification_fingerprint=classification_fingerprint,
            data_overrides=data_overrides,
            augment_overrides=augment_overrides,
            pretrain_overrides=pretrain_overrides,
            train_overrides=train_overrides,
            launcher=launcher,
            cluster=cluster,
            code_digest=code_digest,
        )
        measuring = measuring_tasks(
            validated,
            training.trained,
            store=store,
            run_name=run_name,
            min_ap=min_ap,
            max_drop=max_drop,
            evaluate_overrides=evaluate_overrides,
            export_overrides=export_overrides,
            quantize_overrides=quantize_overrides,
            code_digest=code_digest,
        )
        # The record of the evaluation is an input, so that nothing is published that did not pass its gate.
        published = publish(
            bundle=measuring.quantized.outputs["bundle"],
            evaluation=measuring.evaluated.outputs["record"],
            store=store,
            version=version,
            code_digest=code_digest,
        )
    for task in (validated, *training, *measuring, published, stopped):
        give_surroundings(task)
