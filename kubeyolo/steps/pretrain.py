"""pretrain_backbone: the backbone learns to classify before it learns to detect."""

from __future__ import annotations

from typing import Any

from kubeyolo.config.schema import Config
from kubeyolo.data.class_images import class_fingerprint
from kubeyolo.data.crops import large_objects
from kubeyolo.data.dataset import Dataset
from kubeyolo.errors import WorkError
from kubeyolo.launch.launcher import Launcher
from kubeyolo.publishing import sign_bundle
from kubeyolo.steps.outcome import StepOutcome, Stopwatch
from kubeyolo.storage.place import Place
from kubeyolo.training.history import FILE_NAME, TrainingHistory
from kubeyolo.training.profile import read_summary
from kubeyolo.training.result import read_result
from kubeyolo.training.spec import TrainingSpec

STEP = "pretrain_backbone"


def pretrain_backbone(
    spec: TrainingSpec, dataset: Dataset, output: Place, launcher: Launcher, fingerprint: str = ""
) -> StepOutcome:
    """Pretrain the backbone of a detector as a classifier; nothing is done when ``pretrain.enabled`` is false.

    Args:
        spec: The training run: on the images of ``pretrain.data``, or on crops of the objects of the data set.
        dataset: The stored detection data set.
        output: Its output, which this process has claimed; it receives bundle and history.
        launcher: Starts the process.
        fingerprint: Fingerprint that the images of ``pretrain.data`` had when the run started; empty if unknown.

    Returns:
        The outcome; the output ``backbone`` is empty if nothing is pretrained.

    Raises:
        InputError: The images cannot be used.
        WorkError: The training process failed, or the images changed since the run started.
    """
    # Imported here, so that no other command waits for matplotlib.
    from kubeyolo.report.training import pretraining_report

    watch, settings = Stopwatch(), spec.config.pretrain
    warnings = [] if not settings.enabled or settings.data else _without_crops(dataset, spec.config)
    if not settings.enabled or warnings:
        for words in warnings:
            print(f"{STEP}: {words}", flush=True)
        off = {"enabled": False} | ({"warnings": warnings} if warnings else {})
        return StepOutcome(step=STEP, seconds=watch.seconds, outputs={"backbone": ""}, metrics=off)
    launcher.launch(spec.work())
    if settings.data and fingerprint and class_fingerprint(output.at(settings.data)) != fingerprint:
        raise WorkError(f"{settings.data}: the images changed after the run started; run it again")
    result = read_result(output.store)
    rows = TrainingHistory.from_bytes((output / FILE_NAME).read()).until(result.steps).of("pretrain")
    extended = {"extended": "; ".join(result.extended)} if result.extended else {}
    facts = {
        "model": spec.config.model,
        "images": settings.data or "crops of the objects of the data set",
        **settings.model_dump(mode="json", exclude={"enabled", "data"}),
        "seconds": result.seconds,
        "warnings": result.warnings,
        **extended,
    }
    metrics: dict[str, Any] = {"enabled": True, "steps": rows[-1].step if rows else 0, **extended}
    if rows and rows[-1].loss is not None:
        metrics["loss"] = rows[-1].loss
    measured = [row for row in rows if row.accuracy is not None]
    if measured:
        metrics["accuracy"] = measured[-1].accuracy
        metrics |= {} if measured[-1].top5 is None else {"top5": measured[-1].top5}
    metrics |= {"warnings": list(result.warnings)} if result.warnings else {}
    return StepOutcome(
        step=STEP,
        seconds=result.seconds,
        outputs={"backbone": sign_bundle(output / "bundle")},
        metrics=metrics,
        html=pretraining_report(rows, facts, read_summary(output.store)),
    )


def _without_crops(dataset: Dataset, config: Config) -> list[str]:
    """Return a warning if the train or the held-out split has no object that is large enough for a crop."""
    for split in ("train", "val"):
        if not len(large_objects(dataset.index(split), config.pretrain)):
            return [
                f"continues without pretraining: no object of split {split!r} is at least "
                f"{config.pretrain.min_object_size} pixels wide and high (pretrain.min_object_size)"
            ]
    return []
