"""The reports of train and pretrain_backbone: curves, settings, facts of the model."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubeyolo.formats import duration
from kubeyolo.report.charts import Chart, Mark, Series, line_chart
from kubeyolo.report.formats import compact, integer, number3, setting
from kubeyolo.report.page import Stat, fact_groups, render
from kubeyolo.report.validations import class_rows, validation_charts
from kubeyolo.training.history import HistoryRow, TrainingHistory, best_validation
from kubeyolo.training.profile import ProfileSummary

Row = Mapping[str, Any]

CURVE_HINT = "Thin line: logged value. Thick line: moving average. Hover for values."

MAIN_SETTINGS = (
    "image_size",
    "per_batch_size",
    "max_epoch",
    "processes",
    "optimizer",
    "lr",
    "lr_scheduler",
    "weight_decay",
    "ema_decay",
    "seed",
)


@dataclass(frozen=True)
class BatchPicture:
    """A picture of a batch as the network received it, as JPEG, and a line under it."""

    jpeg: bytes
    caption: str

    @property
    def source(self) -> str:
        """The picture as a data URI."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode("ascii")


def training_report(
    history: TrainingHistory,
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    batches: Sequence[BatchPicture] = (),
    profile: ProfileSummary | None = None,
) -> str:
    """Return the report of a training as one HTML page.

    Args:
        history: Rows of kind "train", "val" and "extended"; rows of kind "extended" are marked in the curves.
        config: The configuration, as nested mappings.
        facts: Facts of the model and the run, listed on the page; ``resumed_at`` (steps) is marked in the curves,
            ``seconds`` is one of the large numbers, ``warnings`` are at the top.
        batches: Pictures of batches.
        profile: Where the time of the training went.
    """
    rows, validations = _mappings(history.of("train")), history.of("val")
    extended = {row.step: str(row.length) for row in history.of("extended")}
    resumed = [step for step in facts.get("resumed_at", ()) if step not in extended]
    marks = [Mark(float(step), f"resumed at {integer(step)}") for step in resumed]
    marks += [Mark(float(step), f"extended at {integer(step)}") for step in extended]
    train: Mapping[str, Any] = config.get("train", {})
    main = {key: train[key] for key in MAIN_SETTINGS if key in train}
    if train.get("anchors"):
        main["anchors"] = setting(train["anchors"])
    shown = {key: value for key, value in facts.items() if key not in {"seconds", "warnings"}}
    groups = ([("Main settings", fact_groups(main, "")[0][1])] if main else []) + fact_groups(shown, "Facts")
    return render(
        "training.html",
        kind="training",
        title=str(config.get("model", "Training")),
        lead=_lead(rows, resumed, extended),
        warnings=facts.get("warnings", ()),
        stats=_stats(rows, validations, facts),
        curve_hint=CURVE_HINT,
        charts=_training_charts(rows, validations, marks),
        classes=class_rows(validations),
        batches=batches,
        profile=profile,
        facts_heading="Settings and facts",
        fact_groups=groups,
        config_groups=fact_groups(config, "run"),
    )


def pretraining_report(
    rows: Iterable[HistoryRow], facts: Mapping[str, Any], profile: ProfileSummary | None = None
) -> str:
    """Return the report of a pretraining as one HTML page.

    Args:
        rows: Logged steps with step, epoch, and loss or accuracies (0..1) or both: ``accuracy`` is top-1, and ``top5``
            is present with more than 5 classes.
        facts: Facts of the run, listed on the page; ``model`` is in the heading, ``warnings`` are at the top.
        profile: Where the time of the pretraining went.
    """
    logged = _mappings(rows)
    accuracy = _curve(logged, "accuracy", "top-1", 2, dots=True)
    top5 = _curve(logged, "top5", "top-5", 3, dots=True)
    charts = [_loss_chart("pretraining-loss", "Classification loss", logged, ["loss"], ())]
    if len(accuracy.x):
        best = max(accuracy.y)
        charts.append(
            line_chart(
                "pretraining-accuracy",
                "Accuracy on held-out images",
                [accuracy, top5] if len(top5.x) else [accuracy],
                x_label="step",
                label=f"Top-1 accuracy over steps; highest {best:.3f}",
                y_limits=(0.0, 1.03),
            )
        )
    if any(row.get("lr") is not None for row in logged):
        charts.append(_rate_chart(logged, ()))
    stats = [_steps_stat(logged), *_loss_stat(logged)]
    if len(accuracy.y):
        stats.append(Stat("Top-1", number3(accuracy.y[-1]), "accuracy on held-out images"))
    if len(top5.y):
        stats.append(Stat("Top-5", number3(top5.y[-1]), "accuracy on held-out images"))
    if "seconds" in facts:
        stats.append(Stat("Time", duration(facts["seconds"])))
    return render(
        "training.html",
        kind="pretraining",
        title=f"{facts.get('model', 'Backbone')}: pretrained backbone",
        lead="The backbone was trained as a classifier; the training of the detector starts from its weights.",
        warnings=facts.get("warnings", ()),
        stats=stats,
        curve_hint=CURVE_HINT,
        charts=charts,
        classes=[],
        batches=[],
        profile=profile,
        facts_heading="Facts",
        fact_groups=fact_groups({k: v for k, v in facts.items() if k not in {"seconds", "warnings"}}, "Pretraining"),
        config_groups=[],
    )


def _training_charts(rows: Sequence[Row], validations: Sequence[HistoryRow], marks: Sequence[Mark]) -> list[Chart]:
    charts = [
        _loss_chart("loss-total", "Loss, total", rows, ["loss"], marks),
        _loss_chart("loss-parts", "Loss, parts: box, objectness, class", rows, ["box", "obj", "cls"], marks),
    ]
    charts += validation_charts(validations)
    charts.append(_rate_chart(rows, marks))
    if any(row.get("images_per_second") for row in rows):
        speed = _curve(rows, "images_per_second", "images/s", 5, smooth=True)
        charts.append(
            line_chart(
                "speed",
                "Images per second",
                [speed],
                x_label="step",
                label=f"Images per second over steps; mean {sum(speed.y) / len(speed.y):.1f}",
                marks=marks,
            )
        )
    return charts


def _loss_chart(name: str, title: str, rows: Sequence[Row], keys: Sequence[str], marks: Sequence[Mark]) -> Chart:
    offset = 0 if len(keys) == 1 else 1
    series = [_curve(rows, key, key, index + offset, smooth=True) for index, key in enumerate(keys)]
    ends = [f"{row.name} from {row.y[0]:.4g} to {row.y[-1]:.4g}" for row in series if len(row.y)]
    return line_chart(name, title, series, x_label="step", label=f"{title}: {', '.join(ends)}", marks=marks)


def _rate_chart(rows: Sequence[Row], marks: Sequence[Mark]) -> Chart:
    rate = _curve(rows, "lr", "learning rate", 3)
    highest = max(rate.y, default=0.0)
    label = f"Learning rate over steps; highest {highest:.3g}"
    return line_chart("learning-rate", "Learning rate", [rate], x_label="step", label=label, marks=marks)


def _curve(rows: Sequence[Row], key: str, name: str, color: int, x: str = "step", **drawn: bool) -> Series:
    """Return the values of a key over steps or epochs, without the rows that lack the key."""
    kept = [row for row in rows if row.get(key) is not None]
    return Series(name, [float(row[x]) for row in kept], [float(row[key]) for row in kept], color, **drawn)


def _stats(rows: Sequence[Row], validations: Sequence[HistoryRow], facts: Mapping[str, Any]) -> list[Stat]:
    stats = [_steps_stat(rows), *_loss_stat(rows)]
    best = best_validation(validations)
    if best is not None:
        stats.append(Stat("Best AP", number3(best.ap), f"on validation, epoch {integer(best.epoch + 1)}"))
    speeds = sorted(row["images_per_second"] for row in rows if row.get("images_per_second"))
    if speeds:
        stats.append(Stat("Speed", f"{speeds[len(speeds) // 2]:.1f}", "images per second, median"))
    if "seconds" in facts:
        stats.append(Stat("Time", duration(facts["seconds"])))
    return stats


def _steps_stat(rows: Sequence[Row]) -> Stat:
    epochs = int(rows[-1]["epoch"]) if rows else 0
    return Stat("Steps", integer(rows[-1]["step"] if rows else 0), f"{integer(epochs)} epoch{'s' * (epochs != 1)}")


def _loss_stat(rows: Sequence[Row]) -> list[Stat]:
    losses = [float(row["loss"]) for row in rows if row.get("loss") is not None]
    return [Stat("Loss", compact(losses[-1]), f"from {compact(losses[0])}")] if losses else []


def _lead(rows: Sequence[Row], resumed: Sequence[int], extended: Mapping[int, str]) -> str:
    if not rows:
        return "No steps were logged."
    again = (
        f" The training was interrupted and resumed {len(resumed)} time{'s' * (len(resumed) > 1)}." if resumed else ""
    )
    longer = "".join(
        f" The training was extended {length} at step {integer(step)}." for step, length in extended.items()
    )
    return f"Trained for {integer(rows[-1]['step'])} steps.{again}{longer}"


def _mappings(rows: Iterable[HistoryRow]) -> list[Row]:
    """Return rows as mappings, with epochs counted from 1."""
    return [{**row.model_dump(), "epoch": row.epoch + 1} for row in rows]
