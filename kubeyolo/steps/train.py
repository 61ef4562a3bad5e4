"""train: the detector, by processes of its own, with checkpoints in the store while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubeyolo.bundle import bundle_reference
from kubeyolo.config.schema import Config
from kubeyolo.source import weights_source
from kubeyolo.steps.record import Finished, write_record, write_report
from kubeyolo.storage.uri import join_uri, read_document

if TYPE_CHECKING:
    from kubeyolo.training.spec import TrainingSpec

STEP = "train"

Launch = Callable[["TrainingSpec"], None]
"""Starts training processes and waits for them."""


@dataclass(frozen=True, kw_only=True)
class TrainedDetector:
    """References of the bundle with the trained weights and of the record."""

    bundle: str
    record: str


def train(
    dataset: str,
    output: str,
    config: Config,
    backbone: str = "",
    begin: Callable[[], None] | None = None,
    launch: Launch | None = None,
    writer: str = "",
    command: Callable[[str], str] | None = None,
) -> TrainedDetector:
    """Train a detector; a training that was interrupted in ``output`` is continued.

    Args:
        dataset: URI or reference of the stored data set.
        output: URI of the folder that receives checkpoints, history, bundle, report.html and metrics.json.
        config: Model, and the sections ``train``, ``augment`` and ``data``.
        backbone: URI or reference of the bundle of a pretrained backbone to start from.
        begin: Called once no other process works in ``output``, before anything is changed there.
        launch: Starts the processes; on this machine by default.
        writer: Name of the job that trains in ``output``, when it outlives this process and is taken up again.
        command: Gives the command line that trains at another output; by default it is made of the settings.

    Raises:
        InputError: The data set or the backbone cannot be used, or ``output`` holds another training.
        WorkError: A training process failed; the message ends with what it said last.
    """
    from kubeyolo.steps.earlier_trainings import name_earlier_trainings, refuse_extension
    from kubeyolo.steps.same_training import claimed_unless_finished
    from kubeyolo.training.spec import TrainingSpec

    spec = TrainingSpec(dataset=dataset, output=output, config=config, backbone=backbone or None)
    with claimed_unless_finished(spec, STEP, begin, writer) as held:
        if isinstance(held, Finished):
            return TrainedDetector(bundle=held.record.outputs["bundle"], record=held.reference)
        refuse_extension(spec)
        name_earlier_trainings(spec, STEP, dataset, command)
        return _train(dataset, output, config, backbone, launch, held.writer)


def _train(
    dataset: str, output: str, config: Config, backbone: str, launch: Launch | None, writer: str
) -> TrainedDetector:
    from kubeyolo.data.dataset import open_dataset
    from kubeyolo.launch.local import launch_training
    from kubeyolo.report.training import training_report
    from kubeyolo.training.history import FILE_NAME, TrainingHistory
    from kubeyolo.training.result import read_result
    from kubeyolo.training.spec import TrainingSpec

    manifest = open_dataset(dataset).manifest
    spec = TrainingSpec(
        dataset=dataset,
        output=output,
        config=config,
        backbone=backbone or None,
        code_digest=weights_source(),
        writer=writer,
    )
    (launch or launch_training)(spec)
    result = read_result(output)
    history = TrainingHistory.from_bytes(read_document(join_uri(output, FILE_NAME))).until(result.steps)
    seconds = result.seconds
    facts = {
        "data set": manifest.name,
        "classes": len(manifest.classes),
        "backbone": backbone,
        "seconds": seconds,
        "resumed_at": result.resumed_at,
    }
    if result.extended:
        facts["extended"] = "; ".join(result.extended)
    if result.anchor_recall is not None:
        facts["boxes that an anchor fits"] = f"{100 * result.anchor_recall:.1f} %"
    if result.warnings:
        facts["warnings"] = result.warnings
    report = write_report(output, training_report(history, config.model_dump(mode="json"), facts))
    bundle = bundle_reference(join_uri(output, "bundle"))
    rows = history.of("train")
    last = rows[-1] if rows else None
    metrics: dict[str, Any] = {"steps": last.step if last else 0, "epochs": last.epoch + 1 if last else 0}
    if last is not None:
        losses = {"loss": last.loss, "box_loss": last.box, "obj_loss": last.obj, "cls_loss": last.cls}
        metrics |= {name: value for name, value in losses.items() if value is not None}
        speeds = sorted(row.images_per_second for row in rows if row.images_per_second)
        metrics |= {"images_per_second": speeds[len(speeds) // 2]} if speeds else {}
    metrics |= {} if result.anchor_recall is None else {"anchor_recall": result.anchor_recall}
    metrics |= {"extended": "; ".join(result.extended)} if result.extended else {}
    metrics["warnings"] = list(result.warnings)
    record = write_record(output, STEP, seconds, {"bundle": bundle}, metrics, report)
    return TrainedDetector(bundle=bundle, record=record)
