"""``training.json``, the last file that a finished training writes into its output."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from kubeyolo.documents import read_model
from kubeyolo.errors import InputError, first_problem
from kubeyolo.storage.base import Store
from kubeyolo.training.compilations import CompiledGraphs
from kubeyolo.training.extension import extension_lines

RESULT_NAME = "training.json"
"""A training is complete if its output has this file."""

LAST = "last"
"""Folder of the bundle with the weights after the last epoch, if other weights are published."""


class Choice(BaseModel):
    """Which weights a training has published, and their validation; epochs count from 0, AP is in 0..1.

    Attributes:
        weights: "best" for the weights of the best validation, "last" for the weights after the last epoch.
        split: The split that was validated.
        epoch: Epoch of the published weights.
        ap: Their COCO AP; None if the split has no boxes.
        ap50: Their AP at IoU 0.50.
        last_epoch: The last epoch of the training.
        last_ap: AP of the weights after the last epoch.
        last: URI of the bundle with the weights after the last epoch; empty if they are the published weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: Literal["best", "last"]
    split: str
    epoch: int
    ap: float | None
    ap50: float | None
    last_epoch: int
    last_ap: float | None
    last: str = ""

    @property
    def of_last(self) -> Choice:
        """The same for the weights after the last epoch, without their AP at IoU 0.50."""
        return self.model_copy(
            update={"weights": "last", "epoch": self.last_epoch, "ap": self.last_ap, "ap50": None, "last": ""}
        )

    @property
    def words(self) -> str:
        """The choice in words."""
        ap50 = "" if self.ap50 is None else f", AP50 {self.ap50:.4f}"
        rated = f"AP {self.ap or 0:.4f}{ap50} on {self.split}"
        if self.weights == "last":
            return f"after the last epoch, {self.epoch}: {rated}"
        if self.epoch == self.last_epoch:
            return f"the best validation, after the last epoch, {self.epoch}: {rated}"
        last = f"last epoch, {self.last_epoch}: AP {self.last_ap or 0:.4f}"
        return f"the best validation, after epoch {self.epoch}: {rated}; {last}"


class TrainingResult(BaseModel):
    """The record of a finished training.

    Attributes:
        identity: What the weights depend on, by key.
        code_digest: Digest of the library that finished it.
        steps: Optimizer steps.
        bundle: URI of the published weights.
        seconds: Time of all sessions together.
        resumed_at: Steps at which the training was continued, after an interruption or to extend it.
        warnings: Warnings of the training; usually none.
        anchor_recall: Share of the boxes that fit an anchor, 0..1; None for a backbone.
        choice: The published weights and their validation; None if nothing was validated.
        stopped: Why the training stopped before its last epoch; empty if it did not.
        compiled: What MindSpore compiled in the last session.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    identity: dict[str, Any]
    code_digest: str
    steps: int
    bundle: str
    seconds: float
    resumed_at: list[int]
    # Results of earlier versions do not have these fields.
    warnings: tuple[str, ...] = ()
    anchor_recall: float | None = None
    choice: Choice | None = None
    stopped: str = ""
    compiled: CompiledGraphs | None = None

    @property
    def extended(self) -> list[str]:
        """A line for each time the training was extended: ``from 10 to 20 epochs at step 60``."""
        return extension_lines(self.identity)


def read_result(store: Store) -> TrainingResult:
    """Read the result of a finished training from its output.

    Raises:
        NotFound: There is no result.
        InputError: The result is damaged, or the file is not a result.
    """
    document, remedy = store.read_bytes(RESULT_NAME), "choose another output with --output"
    try:
        return read_model(document, TrainingResult, store.uri_of(RESULT_NAME), remedy)
    except ValidationError as error:
        raise InputError(
            f"{store.uri_of(RESULT_NAME)}: not the result of a training ({first_problem(error)}); {remedy}"
        ) from error
