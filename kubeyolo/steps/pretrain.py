"""pretrain_backbone: the backbone learns to classify before it learns to detect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kubeyolo.bundle import bundle_reference
from kubeyolo.config.schema import Config
from kubeyolo.errors import WorkError
from kubeyolo.source import weights_source
from kubeyolo.steps.record import Finished, Stopwatch, write_record, write_report
from kubeyolo.storage.uri import join_uri, read_document

STEP = "pretrain_backbone"


@dataclass(frozen=True, kw_only=True)
class PretrainedBackbone:
    """References of the bundle of the backbone (empty when pretraining is off) and of the record."""

    backbone: str
    record: str


def pretrain_backbone(
    dataset: str,
    output: str,
    config: Config,
    begin: Callable[[], None] | None = None,
    fingerprint: str = "",
    command: Callable[[str], str] | None = None,
) -> PretrainedBackbone:
    """Pretrain the backbone of a detector as a classifier.

    Args:
        dataset: URI or reference of the stored detection data set, whose objects are cropped when ``pretrain.data`` is
            empty.
        output: URI of the folder that receives bundle, history, report.html and metrics.json.
        config: Model and section ``pretrain``; colours of ``augment``; seed, clipping and device of ``train``.
            Nothing is done when ``pretrain.enabled`` is false.
        begin: Called once no other process works in ``output``, before anything is changed there.
        fingerprint: Fingerprint that the images of ``pretrain.data`` had when the run began; empty if not known.
        command: Gives the command line that pretrains at another output; by default it is made of the settings.

    Raises:
        InputError: The images cannot be used.
        WorkError: The training process failed, or the images changed since the run began.
    """
    from kubeyolo.steps.earlier_trainings import name_earlier_trainings, refuse_extension
    from kubeyolo.steps.same_training import claimed_unless_finished
    from kubeyolo.training.spec import TrainingSpec

    spec = TrainingSpec(task="backbone", dataset=config.pretrain.data or dataset, output=output, config=config)
    with claimed_unless_finished(spec, STEP, begin) as held:
        if isinstance(held, Finished):
            return PretrainedBackbone(backbone=held.record.outputs["backbone"], record=held.reference)
        if config.pretrain.enabled:
            refuse_extension(spec)
            name_earlier_trainings(spec, STEP, dataset, command)
        return _pretrain(dataset, output, config, fingerprint, held.writer)


def _pretrain(dataset: str, output: str, config: Config, fingerprint: str, writer: str) -> PretrainedBackbone:
    from kubeyolo.launch.local import launch_training
    from kubeyolo.report.training import pretraining_report
    from kubeyolo.training.class_images import class_fingerprint
    from kubeyolo.training.history import FILE_NAME, TrainingHistory
    from kubeyolo.training.result import read_result
    from kubeyolo.training.spec import TrainingSpec

    watch = Stopwatch()
    if not config.pretrain.enabled:
        record = write_record(output, STEP, watch.seconds, {"backbone": ""}, {"enabled": False})
        return PretrainedBackbone(backbone="", record=record)
    images = config.pretrain.data
    if not images and (words := _too_small(dataset, config)):
        print(f"{STEP}: {words}", flush=True)
        outcome = {"enabled": False, "warnings": [words]}
        record = write_record(output, STEP, watch.seconds, {"backbone": ""}, outcome)
        return PretrainedBackbone(backbone="", record=record)
    spec = TrainingSpec(
        task="backbone",
        dataset=images or dataset,
        output=output,
        config=config,
        code_digest=weights_source(),
        writer=writer,
    )
    launch_training(spec)
    if images and fingerprint and class_fingerprint(images) != fingerprint:
        raise WorkError(f"{images}: the images changed after the run began; run it again")
    result = read_result(output)
    rows = TrainingHistory.from_bytes(read_document(join_uri(output, FILE_NAME))).until(result.steps).of("pretrain")
    seconds = result.seconds
    accuracies = [row.accuracy for row in rows if row.accuracy is not None]
    accuracy = accuracies[-1] if accuracies else None
    facts = {
        "model": config.model,
        "images": images or "crops of the objects of the data set",
        **config.pretrain.model_dump(mode="json", exclude={"enabled", "data"}),
        "seconds": seconds,
        "warnings": result.warnings,
        **({"extended": "; ".join(result.extended)} if result.extended else {}),
    }
    report = write_report(output, pretraining_report([row.model_dump(exclude_none=True) for row in rows], facts))
    metrics: dict[str, Any] = {"enabled": True, "steps": rows[-1].step if rows else 0}
    metrics |= {"extended": "; ".join(result.extended)} if result.extended else {}
    if rows and rows[-1].loss is not None:
        metrics["loss"] = rows[-1].loss
    if accuracy is not None:
        metrics["accuracy"] = accuracy
    if result.warnings:
        metrics["warnings"] = list(result.warnings)
    backbone = bundle_reference(join_uri(output, "bundle"))
    record = write_record(output, STEP, seconds, {"backbone": backbone}, metrics, report)
    return PretrainedBackbone(backbone=backbone, record=record)


def _too_small(dataset: str, config: Config) -> str:
    """Say that the objects of a data set give no crops to pretrain on, train or held out; empty where they do."""
    from kubeyolo.data.dataset import open_dataset
    from kubeyolo.training.crops import large_objects

    images = open_dataset(dataset)
    for split in ("train", "val"):
        if not len(large_objects(images.split(split).index, config.pretrain)):
            return (
                f"goes on without pretraining: no object of split {split!r} is at least "
                f"{config.pretrain.min_object_size} pixels wide and high (pretrain.min_object_size)"
            )
    return ""
