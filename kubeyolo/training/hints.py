"""Hints about a training that goes wrong, from its history: a loss that does not fall, lost classes, AP that falls.

A hint is a function of the rows of the history, so a training that was interrupted ends with the same hints. It names
the likeliest cause and a remedy. It has no effect on the training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kubeyolo.config.training_schema import PretrainConfig, TrainConfig
from kubeyolo.formats import counted
from kubeyolo.output_streams import Show
from kubeyolo.training.history import HistoryRow, TrainingHistory, best_validation
from kubeyolo.training.learnable import show_warnings
from kubeyolo.training.loop_parts import Journal, Moment

LEARNED_AP = 0.05
"""A network with a smaller AP has learned almost nothing: its classes are not judged, nor whether its AP falls."""

LOSS_AFTER = 0.2
"""Share of the steps after which the loss must have fallen."""

LEAST_STEPS = 100
"""In a shorter training the loss is not judged."""

LEAST_FALL = 0.02
"""The loss has not fallen if its mean is less than this share below its mean at the start."""

WINDOW = 0.05
"""Share of the steps over which a mean of the loss is taken."""

CLASSES_AFTER = 0.5
"""Share of the steps after which every class must have been predicted."""

LOST_VALIDATIONS = 3
"""A class is lost if its AP is below :data:`LOST_AP` in this many validations, one after another."""

LOST_AP = 0.001

WORSE_VALIDATIONS = 5
"""A hint about AP needs this many validations, one after another, that are far below the best value ..."""

WORSE_SHARE = 0.2
"""... over this share of the steps."""

WORSE_BY = 0.1
"""Far below: by this share of the best value, and by :data:`WORSE_POINTS`."""

WORSE_POINTS = 0.01

_FEW_BOXES = 50
_SMALL_LR, _LARGE_LR = 1 / 30, 10
_MOST_NAMES = 5
_LEAST_ROWS = 3


class Hints:
    """The hints of a training.

    Args:
        train: Settings of the training.
        total_steps: Its length in steps.
        boxes: Number of training boxes by name of the class.
        show: Shows a line.
        has_learned: Whether the training starts from a detector, whose loss may be as small as it can be.
    """

    def __init__(
        self,
        train: TrainConfig,
        total_steps: int,
        boxes: Mapping[str, int],
        show: Show = print,
        has_learned: bool = False,
    ) -> None:
        self._train, self._total, self._boxes, self._show = train, total_steps, boxes, show
        self._has_learned = has_learned
        self._shown: set[str] = set()

    def hints_of(self, rows: Sequence[HistoryRow]) -> dict[str, str]:
        """Return the hints that hold at the end of some rows, by their kind."""
        train = [row for row in rows if row.kind == "train" and row.loss is not None]
        validations = [row for row in rows if row.kind == "val"]
        hints = {
            "loss": "" if self._has_learned else loss_hint(train, validations, self._train, self._total),
            "classes": class_hint(validations, self._boxes, self._total),
            "worse": worse_hint(train, validations, self._train, self._total),
        }
        return {kind: hint for kind, hint in hints.items() if hint}

    def skip_shown(self, rows: Sequence[HistoryRow]) -> None:
        """Do not show the hints again that were shown for these rows, before an interruption."""
        self._shown |= self.hints_of(rows).keys()

    def show_new(self, history: TrainingHistory) -> list[str]:
        """Return the hints that hold now, and show each hint whose kind was not shown before."""
        hints = self.hints_of(history.rows)
        show_warnings([hint for kind, hint in hints.items() if kind not in self._shown], self._show)
        self._shown |= hints.keys()
        return list(hints.values())


class HintLines:
    """The part of the training loop that looks for hints after each epoch."""

    def __init__(self, hints: Hints, journal: Journal) -> None:
        self._hints, self._journal = hints, journal
        self._is_first = True

    def after_step(self, moment: Moment) -> None:
        """Show new hints if an epoch ends."""
        if self._is_first:
            self._is_first = False
            self._hints.skip_shown([row for row in self._journal.history.rows if row.step < moment.step])
        if moment.ends_epoch:
            self._hints.show_new(self._journal.history)


def loss_hint(
    rows: Sequence[HistoryRow], validations: Sequence[HistoryRow], train: TrainConfig, total_steps: int
) -> str:
    """Return a hint if the loss does not fall, unless a validation shows that the network has learned.

    Args:
        rows: Rows of kind "train" with a loss.
        validations: Rows of kind "val".
        train: Settings of the training.
        total_steps: Length of the training in steps.
    """
    if not rows or rows[-1].step < max(LEAST_STEPS, LOSS_AFTER * total_steps):
        return ""
    if any((row.ap or 0.0) >= LEARNED_AP for row in validations):
        return ""
    count = max(_LEAST_ROWS, sum(row.step <= WINDOW * total_steps for row in rows))
    first, last = _mean_loss(rows[:count]), _mean_loss(rows[-count:])
    if len(rows) < 2 * count or last < (1 - LEAST_FALL) * first:
        return ""
    return (
        f"the loss does not fall: {first:.4g} at the start, {last:.4g} after {rows[-1].step} of "
        f"{counted(total_steps, 'step')}; {_cause_of_loss(train)}"
    )


def class_hint(validations: Sequence[HistoryRow], boxes: Mapping[str, int], total_steps: int) -> str:
    """Return a hint if the latest validations have found no object of some classes.

    Args:
        validations: Rows of kind "val".
        boxes: Number of training boxes by name of the class.
        total_steps: Length of the training in steps.
    """
    last = [row for row in validations if row.ap_by_class is not None][-LOST_VALIDATIONS:]
    if len(last) < LOST_VALIDATIONS or last[-1].step < CLASSES_AFTER * total_steps or (last[-1].ap or 0) < LEARNED_AP:
        return ""
    aps = [row.ap_by_class or {} for row in last]
    lost = [name for name in aps[-1] if all(each.get(name, 1.0) < LOST_AP for each in aps)]
    if not lost:
        return ""
    names = ", ".join(f"{name!r} (training boxes: {boxes.get(name, 0)})" for name in lost[:_MOST_NAMES])
    more = f" and {len(lost) - _MOST_NAMES} more" if len(lost) > _MOST_NAMES else ""
    few = [name for name in lost if boxes.get(name, 0) < _FEW_BOXES]
    cause = (
        "too few boxes to learn from: add images of these classes"
        if len(few) * 2 > len(lost)
        else "that they look like other classes, or that their boxes have the wrong class in one of the splits: see "
        "the confusion matrix in the report of the evaluation; if the boxes are right, raise train.cls_gain"
    )
    return (
        f"objects of some classes are never found: AP is 0 in the last {LOST_VALIDATIONS} validations up to "
        f"epoch[{last[-1].epoch}] for {names}{more}, with an AP of {last[-1].ap:.3f} over all classes; the likeliest "
        f"cause is {cause}"
    )


def worse_hint(
    rows: Sequence[HistoryRow], validations: Sequence[HistoryRow], train: TrainConfig, total_steps: int
) -> str:
    """Return a hint if AP has been far below its best value for a long time.

    Args:
        rows: Rows of kind "train" with a loss.
        validations: Rows of kind "val".
        train: Settings of the training.
        total_steps: Length of the training in steps.
    """
    best = best_validation(validations)
    if best is None or best.ap is None or best.ap < LEARNED_AP:
        return ""
    limit = best.ap - max(WORSE_BY * best.ap, WORSE_POINTS)
    worse: list[HistoryRow] = []
    for row in reversed(validations):
        if (row.ap or 0.0) >= limit or row.step <= best.step:
            break
        worse.insert(0, row)
    if len(worse) < WORSE_VALIDATIONS or worse[-1].step - worse[0].step < WORSE_SHARE * total_steps:
        return ""
    now = worse[-1]
    return (
        f"AP has been far below its best value in the last {len(worse)} validations: {best.ap:.3f} after "
        f"epoch[{best.epoch}], {now.ap or 0.0:.3f} after epoch[{now.epoch}]; {_cause_of_fall(rows, best, train)}"
    )


def _cause_of_loss(train: TrainConfig) -> str:
    """Return the likeliest cause of a loss that does not fall, and a remedy."""
    usual = _usual_lr(train)
    if train.lr <= _SMALL_LR * usual:
        return (
            f"the likeliest cause is train.lr = {train.lr:g}, which is small for {train.optimizer}: train again into a "
            f"different output with --set train.lr={usual:g}"
        )
    if train.lr >= _LARGE_LR * usual:
        return (
            f"the likeliest cause is train.lr = {train.lr:g}, which is large for {train.optimizer}: train again into a "
            f"different output with --set train.lr={usual:g}"
        )
    return (
        "the likeliest cause is boxes that do not fit their images: look at the sample images in the report of "
        "validate_dataset, and at the warnings at the start"
    )


def _cause_of_fall(rows: Sequence[HistoryRow], best: HistoryRow, train: TrainConfig) -> str:
    """Return the likeliest cause of an AP that falls, by the loss since the best validation, and a remedy."""
    then = [row for row in rows if row.step <= best.step][-_LEAST_ROWS:]
    now = [row for row in rows if row.step > best.step][-_LEAST_ROWS:]
    if then and now and _mean_loss(now) > (1 + WORSE_BY) * _mean_loss(then):
        lower = min(train.lr / 3, _usual_lr(train))
        return (
            f"the training loss has risen since then, so the likeliest cause is train.lr = {train.lr:g}: train again "
            f"into a different output with --set train.lr={lower:.3g}"
        )
    return (
        "the training loss has not risen, so the likeliest cause is overfitting: use more images, stronger "
        "augmentation (augment.scale, augment.mosaic, augment.mixup), or fewer epochs "
        f"(train.max_epoch={best.epoch + 1}, or train.patience, which stops by itself)"
    )


def _usual_lr(train: TrainConfig) -> float:
    section = PretrainConfig if train.optimizer == "adamw" else TrainConfig
    return float(section.model_fields["lr"].default)


def _mean_loss(rows: Sequence[HistoryRow]) -> float:
    return sum(row.loss or 0.0 for row in rows) / len(rows)
