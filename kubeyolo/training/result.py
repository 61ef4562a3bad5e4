"""``training.json``, the last file that a finished training writes into its output."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from kubeyolo.errors import InputError, first_problem
from kubeyolo.storage.base import Store
from kubeyolo.training.extension import extension_lines

RESULT_NAME = "training.json"
"""A training is complete if its output has this file."""


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
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    identity: dict[str, Any]
    code_digest: str
    steps: int
    bundle: str
    seconds: float
    resumed_at: list[int]
    # Results of earlier versions have neither field.
    warnings: tuple[str, ...] = ()
    anchor_recall: float | None = None

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
    document = store.read_bytes(RESULT_NAME)
    try:
        return TrainingResult.model_validate_json(document)
    except ValidationError as error:
        raise InputError(
            f"{store.uri_of(RESULT_NAME)}: not the result of a training ({first_problem(error)}); choose another "
            "output with --output"
        ) from error
