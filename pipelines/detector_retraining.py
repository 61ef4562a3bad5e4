"""A detector trained again when its data set has changed, and published when it is not worse than the one in use."""

from kfp import dsl

from components.evaluate_in_use.component import evaluate_in_use
from components.promote.component import promote
from components.read_pointer.component import read_pointer
from components.stop_training.component import stop_training
from components.validate_dataset.component import validate_dataset
from pipelines.detector_tasks import measuring_tasks, training_tasks
from pipelines.surroundings import give_surroundings

PRESET: dict = {}
"""No overrides: every value of the section is the preset's."""


@dsl.pipeline(name="detector-retraining", description="A detector trained on new data takes the place of the old one.")
def detector_retraining(
    pointer: str,
    store: str,
    model: str = "yolov5n-r7",
    latest: str = "",
    force: bool = False,
    image_size: int = 0,
    per_batch_size: int = 0,
    max_epoch: int = 0,
    optimizer: str = "",
    lr: float = 0.0,
    processes: int = 0,
    seed: int = 0,
    min_ap: float = 0.0,
    max_drop: float = 0.0,
    max_regression: float = 0.0,
    classification: str = "",
    data_overrides: dict = PRESET,
    augment_overrides: dict = PRESET,
    pretrain_overrides: dict = PRESET,
    train_overrides: dict = PRESET,
    evaluate_overrides: dict = PRESET,
    export_overrides: dict = PRESET,
    quantize_overrides: dict = PRESET,
    classification_fingerprint: str = "",
    launcher: str = "local",
    cluster: dict = PRESET,
    code_digest: str = "",
) -> None:
    """Train on the data set that a pointer names, when it has changed, and put a model that is not worse in use.

    Args:
        pointer: Store URI of the pointer to the COCO data set: a document such as {"data": "minio://kubeyolo/data/bccd"}.
        store: URI of the store for data sets, checkpoints and bundles, such as minio://bucket/prefix.
        model: Name of the detector, such as yolov5n-r7.
        latest: URI of the pointer to the model in use; empty takes models/<model>/latest.json of the store.
        force: Train although the data set is the one that the model in use was trained on.
        image_size: Side of the square training images, in pixels; 0 takes the preset's.
        per_batch_size: Images per process and step; 0 takes the preset's.
        max_epoch: Epochs; 0 takes the preset's.
        optimizer: sgd or adamw; empty takes the preset's.
        lr: Peak learning rate; 0 takes the preset's.
        processes: Data-parallel training processes; 0 takes the preset's.
        seed: Seed of weights, order and augmentation; 0 takes the preset's.
        min_ap: The run fails when AP (0 to 1) is below this; 0 takes the preset's.
        max_drop: The run fails when int8 loses more points of AP (AP x 100) than this; 0 takes the preset's.
        max_regression: The run fails when a network loses more points of AP than this against the model in use.
        classification: Folder or store URI of images by class to pretrain on; empty takes crops of the objects.
        data_overrides: Values over the preset's section `data` (workers, cache), as JSON.
        augment_overrides: Values over the preset's section `augment` (mosaic, hsv_h, scale ...), as JSON.
        pretrain_overrides: Values over the preset's section `pretrain` (enabled, max_epoch ...), as JSON.
        train_overrides: Values over the preset's section `train` (warmup_epochs, ema_decay ...), as JSON.
        evaluate_overrides: Values over the preset's section `evaluate` (split, iou_threshold ...), as JSON.
        export_overrides: Values over the preset's section `export` (formats, batch_size ...), as JSON.
        quantize_overrides: Values over the preset's section `quantize` (calibration ...), as JSON.
        classification_fingerprint: Digest of what lies at `classification`.
        launcher: Where training runs: local, in its step; volcano, in pods of their own.
        cluster: Settings of the launcher volcano over those of their preset (preset, queue, memory ...), as JSON.
        code_digest: Digest of the library; with it, results of other code are never taken from the cache.
    """
    # It runs whatever becomes of the others, when the run is terminated too.
    stopped = stop_training(launcher=launcher, cluster=cluster)
    stopped.set_caching_options(False)
    with dsl.ExitHandler(stopped, name="steps"):
        pointed = read_pointer(
            pointer=pointer,
            store=store,
            model=model,
            run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            latest=latest,
            force=force,
        )
        # What pointers name is no part of a cache key.
        pointed.set_caching_options(False)
        # No data: it has not changed, and the run succeeds without another step.
        with dsl.If(pointed.outputs["data"] != ""):
            data, fingerprint, run_name = (pointed.outputs[name] for name in ("data", "fingerprint", "run_name"))
            validated = validate_dataset(data=data, store=store, fingerprint=fingerprint, code_digest=code_digest)
            dataset, digest = validated.outputs["dataset"], validated.outputs["digest"]
            in_use = evaluate_in_use(
                bundle=pointed.outputs["in_use"],
                dataset=dataset,
                dataset_digest=digest,
                store=store,
                model=model,
                run_name=run_name,
                evaluate_overrides=evaluate_overrides,
                code_digest=code_digest,
            )
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
            # What cannot be compared is known before the training begins.
            training.pretrained.after(in_use)
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
            promoted = promote(
                bundle=measuring.quantized.outputs["bundle"],
                evaluation=measuring.evaluated.outputs["record"],
                in_use=in_use.outputs["record"],
                latest=pointed.outputs["latest"],
                store=store,
                run_name=run_name,
                data=data,
                fingerprint=fingerprint,
                dataset_digest=digest,
                evaluate_overrides=evaluate_overrides,
                max_regression=max_regression,
                code_digest=code_digest,
            )
            promoted.set_caching_options(False)
    for task in (pointed, validated, in_use, *training, *measuring, promoted, stopped):
        give_surroundings(task)
