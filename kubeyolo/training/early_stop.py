"""Early stopping: a training ends when its validations have not improved for a number of epochs.

The rule depends on the rows of the history alone, so interruptions do not change the step at which a training stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.formats import counted
from kubeyolo.training.history import HistoryRow, TrainingHistory


@dataclass(frozen=True)
class EarlyStop:
    """When to stop.

    Attributes:
        patience: Epochs without an improvement after which the training stops; 0 if it never stops early.
        min_delta: AP, 0..1, by which a validation must exceed the last improvement to be an improvement itself.
    """

    patience: int
    min_delta: float = 0.0

    @classmethod
    def of(cls, train: TrainConfig) -> EarlyStop:
        """Return the rule of a configuration."""
        return cls(train.patience, train.min_delta)

    def reason(self, history: TrainingHistory) -> str:
        """Return why a training stops after its last row; empty if it continues or the row is not a validation.

        Args:
            history: The rows until now.
        """
        if not self.patience or not history.rows or history.rows[-1].kind != "val":
            return ""
        epoch, improved = history.rows[-1].epoch, last_improvement(history.rows, self.min_delta)
        if epoch - improved < self.patience:
            return ""
        delta = f" by more than {self.min_delta:g}" if self.min_delta else ""
        return f"AP has not improved{delta} for {counted(epoch - improved, 'epoch')}, since epoch {improved}"


def last_improvement(rows: Sequence[HistoryRow], min_delta: float) -> int:
    """Return the epoch, from 0, from which epochs without an improvement are counted.

    It is the epoch of the last improvement. While every AP is 0 it is the epoch of the last validation: a network that
    does not detect anything yet is given time. An extension of the training starts the count again.

    Args:
        rows: The rows of a history.
        min_delta: AP, 0..1, by which a validation must exceed the last improvement.
    """
    highest, epoch = 0.0, 0
    for row in rows:
        if row.kind == "extended":
            epoch = row.epoch
        elif row.kind == "val":
            ap = row.ap or 0.0
            if not highest or ap > highest + min_delta:
                highest, epoch = ap, row.epoch
    return epoch


def stop_reason(history: TrainingHistory) -> str:
    """Return why a training stopped early, in words; empty if it did not, or was extended since."""
    ends = [row for row in history.rows if row.kind in ("stopped", "extended")]
    return ends[-1].reason or "" if ends and ends[-1].kind == "stopped" else ""
