"""Which weights of a training are published: those of the best validation, or those after the last epoch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kubeyolo.output_streams import Show
from kubeyolo.training.best import BestWeights
from kubeyolo.training.early_stop import stop_reason
from kubeyolo.training.history import TrainingHistory
from kubeyolo.training.result import Choice


@dataclass(frozen=True)
class Selection:
    """What the choice of the published weights depends on.

    Attributes:
        best: The best validations with their weights.
        keep: "best" publishes the weights of the best validation, "last" the weights after the last epoch.
        split: The validated split.
        history: The history of the training.
        show: Shows a line.
    """

    best: BestWeights
    keep: Literal["best", "last"]
    split: str
    history: TrainingHistory
    show: Show = print

    @property
    def stopped(self) -> str:
        """Why the training stopped early, in words; empty if it did not."""
        return stop_reason(self.history)

    def choose(self, step: int, path: Path) -> Choice | None:
        """Return the choice; None if the weights after the last step were not validated.

        Args:
            step: The last step of the training.
            path: Receives the weights of the best validation, unless the last weights are published.
        """
        rows = self.history.of("val")
        if not rows or rows[-1].step != step:
            return None
        last = rows[-1]
        best = self.best.copy_to(path) if self.keep == "best" else None
        if self.keep == "best" and best is None:
            self.show(
                f"the weights after the last epoch are published: no validation on {self.split} had an AP above 0 and "
                "weights that can be read"
            )
        published = last if best is None or best.step == step else best
        if published is last:
            path.unlink(missing_ok=True)
        return Choice(
            weights="last" if best is None else "best",
            split=self.split,
            epoch=published.epoch,
            ap=published.ap,
            ap50=published.ap50,
            last_epoch=last.epoch,
            last_ap=last.ap,
        )
