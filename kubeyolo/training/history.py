"""The history of a training run as JSON lines: one row for every logged interval and every validation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from kubeyolo.documents import NotJson, read_json
from kubeyolo.errors import InputError

FILE_NAME = "history.jsonl"


class HistoryRow(BaseModel):
    """A row of the history: means over the steps since the previous row.

    Attributes:
        kind: "train" for the detector, "val" for a validation, "pretrain" for a backbone, "extended" when a training
            was extended, "stopped" when it stopped early.
        step: Number of optimizer steps done.
        epoch: Epoch of the last step, from 0.
        loss: Total loss per image; None if all batches overflowed.
        lr: Learning rate of the decayed weights at the last step.
        images_per_second: Images of all processes together.
        scale: The scale of the loss after the last step; None if the loss is not scaled.
        skipped: Updates that were skipped since the start of the training, because gradients overflowed.
        accuracy: Share of held-out crops that are classified correctly (backbone only).
        top5: Share of held-out crops whose class is among the five most likely; None with 5 outputs or fewer (backbone
            only).
        ap: COCO AP (validation only).
        ap_by_class: AP by name of the class, for the classes with boxes in the split (validation only).
        length: The former and the new length, such as "from 10 to 20 epochs" (extension only).
        reason: Why the training stopped early.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["train", "val", "pretrain", "extended", "stopped"] = "train"
    step: int
    epoch: int
    loss: float | None = None
    box: float | None = None
    obj: float | None = None
    cls: float | None = None
    lr: float | None = None
    images_per_second: float | None = None
    scale: float | None = None
    skipped: int | None = None
    accuracy: float | None = None
    top5: float | None = None
    ap: float | None = None
    ap50: float | None = None
    ap_by_class: dict[str, float] | None = None
    length: str | None = None
    reason: str | None = None


def best_validation(rows: Iterable[HistoryRow]) -> HistoryRow | None:
    """Return the validation with the highest AP, of equal validations the first; None if no AP is above 0."""
    best = max((row for row in rows if row.kind == "val"), key=lambda row: row.ap or 0.0, default=None)
    return best if best is not None and best.ap else None


class TrainingHistory:
    """The rows of a history in the order of their steps."""

    def __init__(self, rows: Iterable[HistoryRow] = ()) -> None:
        self.rows: list[HistoryRow] = list(rows)

    def append(self, row: HistoryRow) -> None:
        """Add a row at the end."""
        self.rows.append(row)

    def of(self, kind: str) -> list[HistoryRow]:
        """Return the rows of one kind."""
        return [row for row in self.rows if row.kind == kind]

    def until(self, step: int) -> TrainingHistory:
        """Return the history up to the step at which a training ended, without the rows of a later extension."""
        return TrainingHistory(
            row for row in self.rows if row.step < step or (row.step == step and row.kind != "extended")
        )

    def to_bytes(self) -> bytes:
        """Return the history as JSON lines."""
        return b"".join(orjson.dumps(row.model_dump(exclude_none=True)) + b"\n" for row in self.rows)

    @classmethod
    def from_bytes(cls, data: bytes) -> TrainingHistory:
        """Read JSON lines.

        Raises:
            InputError: A line is not a row; the message names the line.
        """
        rows = []
        for number, line in enumerate(data.splitlines(), 1):
            try:
                rows.append(HistoryRow.model_validate(read_json(line, FILE_NAME)))
            except (ValidationError, NotJson) as error:
                raise InputError(f"{FILE_NAME}, line {number}: not a row of a training history") from error
        return cls(rows)
