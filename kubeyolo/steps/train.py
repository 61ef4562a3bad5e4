"""train: trains the detector in separate processes, which write checkpoints to the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.data.dataset import Dataset
from kubeyolo.launch.launcher import Launcher
from kubeyolo.publishing import sign_bundle
from kubeyolo.report.origin import start_facts
from kubeyolo.steps.outcome import StepOutcome
from kubeyolo.storage.place import Place
from kubeyolo.training.history import FILE_NAME, HistoryRow, TrainingHistory
from kubeyolo.training.profile import read_summary
from kubeyolo.training.result import LAST, TrainingResult, read_result
from kubeyolo.training.spec import TrainingSpec
from kubeyolo.training.start import STARTED_FROM

STEP = "train"


def train(spec: TrainingSpec, dataset: Dataset, output: Place, launcher: Launcher) -> StepOutcome:
    """Train a detector; an interrupted training in the output is continued.

    Args:
        spec: The training run.
        dataset: Its data set.
        output: Its output, which this process has claimed; it receives checkpoints, history and bundle.
        launcher: Starts the processes.

    Raises:
        InputError: The data set or the backbone cannot be used, or the output holds a different training.
        WorkError: A training process failed; the message ends with the last lines of its output.
    """
    # Imported here, so that no other command waits for matplotlib and OpenCV.
    from kubeyolo.report.training import BatchPicture, training_report
    from kubeyolo.training.batch_pictures import stored_pictures

    launcher.launch(spec.work())
    # The processes of a job have no signing key.
    result, bundle = read_result(output.store), sign_bundle(output / "bundle")
    if result.choice is not None and result.choice.last:
        sign_bundle(output / LAST)
    start = bundle.manifest.config.get(STARTED_FROM, {})
    history = TrainingHistory.from_bytes((output / FILE_NAME).read()).until(result.steps)
    batches = [BatchPicture(jpeg, caption) for jpeg, caption in stored_pictures(output.store)]
    settings, profile = spec.config.model_dump(mode="json"), read_summary(output.store)
    return StepOutcome(
        step=STEP,
        seconds=result.seconds,
        outputs={"bundle": bundle},
        metrics=_metrics(result, history.of("train"), start),
        html=training_report(history, settings, _facts(spec, dataset, history, result, start), batches, profile),
    )


def _facts(
    spec: TrainingSpec, dataset: Dataset, history: TrainingHistory, result: TrainingResult, start: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the facts for the report of a training; ``start`` is the record of the detector that it started from."""
    facts: dict[str, Any] = {
        "data set": dataset.manifest.name,
        "classes": len(dataset.classes),
        "started from": f"the backbone {spec.backbone}" if spec.backbone else "random weights",
        **start_facts(start),
        "seconds": result.seconds,
        "resumed_at": result.resumed_at,
        **_extended(result),
        **_precision(spec.config.train, history),
    }
    if result.choice is not None:
        facts["published weights"] = result.choice.words
        facts |= {"weights after the last epoch": result.choice.last} if result.choice.last else {}
    facts |= {"stopped early": result.stopped} if result.stopped else {}
    if result.compiled is not None and result.compiled.graphs:
        facts["compiled in the last session"] = result.compiled.words
    if result.anchor_recall is not None:
        facts["boxes that an anchor fits"] = f"{100 * result.anchor_recall:.1f} %"
    if result.warnings:
        facts["warnings"] = result.warnings
    return facts


def _precision(train: TrainConfig, history: TrainingHistory) -> dict[str, Any]:
    """Return the precision of a training, and the end of its scaled loss."""
    scaled = [row for row in history.of("train") if row.scale is not None]
    if not scaled:
        return {"precision": train.compute_type}
    last = scaled[-1]
    return {
        "precision": train.compute_type,
        "scale of the loss at the end": f"{last.scale:g} ({train.scaling})",
        "updates skipped because gradients overflowed": last.skipped,
    }


def _metrics(result: TrainingResult, rows: Sequence[HistoryRow], start: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics for the record of a training; ``rows`` are the rows of losses in its history."""
    last = rows[-1] if rows else None
    metrics: dict[str, Any] = {"steps": last.step if last else 0, "epochs": last.epoch + 1 if last else 0}
    if last is not None:
        losses = {"loss": last.loss, "box_loss": last.box, "obj_loss": last.obj, "cls_loss": last.cls}
        metrics |= {name: value for name, value in losses.items() if value is not None}
        speeds = sorted(row.images_per_second for row in rows if row.images_per_second)
        metrics |= {"images_per_second": speeds[len(speeds) // 2]} if speeds else {}
        metrics |= {} if last.skipped is None else {"skipped_updates": last.skipped}
    metrics |= {} if result.anchor_recall is None else {"anchor_recall": result.anchor_recall}
    if start:
        classes = start["classes"]
        metrics |= {"started_from": start["bundle"]}
        metrics |= {"classes_taken": len(classes["taken"]), "classes_new": len(classes["new"])}
    metrics |= {} if result.choice is None else {"choice": result.choice.model_dump(mode="json")}
    metrics |= {"stopped": result.stopped} if result.stopped else {}
    return {**metrics, **_extended(result), "warnings": list(result.warnings)}


def _extended(result: TrainingResult) -> dict[str, str]:
    return {"extended": "; ".join(result.extended)} if result.extended else {}
