"""pretrain_backbone: the backbone learns to classify before it learns to detect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kubeyolo.config.schema import Config
from kubeyolo.source import source_digest
from kubeyolo.steps.claim import claimed
from kubeyolo.steps.record import Stopwatch, write_record, write_report
from kubeyolo.storage.uri import join_uri, read_document

STEP = "pretrain_backbone"


@dataclass(frozen=True, kw_only=True)
class PretrainedBackbone:
    """URI of the bundle of the backbone (empty when pretraining is off), its accuracy, and record and report."""

    backbone: str
    accuracy: float | None
    record: str
    report: str
    seconds: float


def pretrain_backbone(
    dataset: str, output: str, config: Config, classification: str = "", begin: Callable[[], None] | None = None
) -> PretrainedBackbone:
    """Pretrain the backbone of a detector as a classifier.

    Args:
        dataset: URI of the stored detection data set, whose objects are cropped when no classification set is given.
        output: URI of the folder that receives bundle, history, report.html and metrics.json.
        config: Model and section ``pretrain``; colours of ``augment``; seed, clipping and device of ``train``.
            Nothing is done when ``pretrain.enabled`` is false.
        classification: Folder or store URI with one folder of images for each class.
        begin: Called once no other process works in ``output``, before anything is changed there.

    Raises:
        InputError: The images cannot be used.
        WorkError: The training process failed.
    """
    with claimed(output):
        if begin is not None:
            begin()
        return _pretrain(dataset, output, config, classification)


def _pretrain(dataset: str, output: str, config: Config, classification: str) -> PretrainedBackbone:
    from kubeyolo.launch.local import launch_training
    from kubeyolo.report.training import pretraining_report
    from kubeyolo.training.history import FILE_NAME, TrainingHistory
    from kubeyolo.training.result import read_result
    from kubeyolo.training.spec import TrainingSpec

    watch = Stopwatch()
    if not config.pretrain.enabled:
        record = write_record(output, STEP, watch.seconds, {"backbone": ""}, {"enabled": False})
        return PretrainedBackbone(backbone="", accuracy=None, record=record, report="", seconds=watch.seconds)
    spec = TrainingSpec(
        task="backbone",
        dataset=classification or dataset,
        output=output,
        config=config,
        code_digest=source_digest(),
    )
    launch_training(spec)
    rows = TrainingHistory.from_bytes(read_document(join_uri(output, FILE_NAME))).of("pretrain")
    seconds = read_result(output).seconds
    accuracies = [row.accuracy for row in rows if row.accuracy is not None]
    accuracy = accuracies[-1] if accuracies else None
    facts = {
        "model": config.model,
        "images": classification or "crops of the objects of the data set",
        **config.pretrain.model_dump(mode="json", exclude={"enabled"}),
        "seconds": seconds,
    }
    report = write_report(output, pretraining_report([row.model_dump(exclude_none=True) for row in rows], facts))
    metrics: dict[str, float] = {"enabled": True, "steps": rows[-1].step if rows else 0}
    if rows and rows[-1].loss is not None:
        metrics["loss"] = rows[-1].loss
    if accuracy is not None:
        metrics["accuracy"] = accuracy
    backbone = join_uri(output, "bundle")
    record = write_record(output, STEP, seconds, {"backbone": backbone}, metrics, report)
    return PretrainedBackbone(backbone=backbone, accuracy=accuracy, record=record, report=report, seconds=seconds)
