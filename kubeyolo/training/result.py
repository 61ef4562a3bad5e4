"""What a finished training leaves last of all in its output: ``training.json``."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from kubeyolo.errors import InputError, first_problem
from kubeyolo.storage.uri import join_uri, read_document
from kubeyolo.training.extension import extension_lines

RESULT_NAME = "training.json"
"""Its presence says that the training is complete."""


class TrainingResult(BaseModel):
    """How a training was made.

    Attributes:
        identity: What its weights depend on, by key.
        code_digest: Digest of the library that finished it.
        steps: Optimizer steps.
        bundle: URI of the published weights.
        seconds: Time of all stretches of training together.
        resumed_at: Steps at which it was continued, after an interruption or to extend it.
        warnings: What it could not learn from, and whether it learned; empty in the usual case.
        anchor_recall: Share of the boxes that an anchor answers for, 0..1; None of a backbone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    identity: dict[str, Any]
    code_digest: str
    steps: int
    bundle: str
    seconds: float
    resumed_at: list[int]
    # Results of earlier versions have neither.
    warnings: tuple[str, ...] = ()
    anchor_recall: float | None = None

    @property
    def extended(self) -> list[str]:
        """A line for each time the training was extended: ``from 10 to 20 epochs at step 60``."""
        return extension_lines(self.identity)


def parse_result(document: bytes, uri: str) -> TrainingResult:
    """Read the text of a ``training.json``; ``uri`` is its place, for errors.

    Raises:
        InputError: It is not one.
    """
    try:
        return TrainingResult.model_validate_json(document)
    except ValidationError as error:
        raise InputError(
            f"{uri}: not the result of a training ({first_problem(error)}); choose another output with --output"
        ) from error


def read_result(output: str) -> TrainingResult:
    """Read what a finished training has left in its output.

    Raises:
        InputError: There is none, or it is damaged.
    """
    uri = join_uri(output, RESULT_NAME)
    return parse_result(read_document(uri), uri)
