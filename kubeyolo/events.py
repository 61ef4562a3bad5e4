"""What a step reports: events between the lines of its output while it runs, and a record at its end."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from kubeyolo.documents import NotJson, read_model
from kubeyolo.errors import InputError

RECORD_NAME = "metrics.json"
REPORT_NAME = "report.html"
FAILURE_NAME = "failure.json"

RUN_PID = "KUBEYOLO_RUN_PID"
"""Environment variable with the process id of the run of a step; the step ends if this process has died."""

EventKind = Literal["started", "finished", "failed"]

_MARK = "::kubeyolo:: "


class StepRecord(BaseModel):
    """``metrics.json``: outputs, metrics and duration of a step; written last.

    ``conditions`` has the values that the result depends on, by key. It is empty in steps that train, which store these
    values elsewhere, and in records of earlier versions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: str
    seconds: float
    outputs: dict[str, str] = {}
    metrics: dict[str, Any] = {}
    report: str = ""
    conditions: dict[str, Any] = {}


def parse_record(document: bytes, uri: str) -> StepRecord:
    """Return the record in a document; ``uri`` names the document in the error.

    Raises:
        InputError: It is not the record of a step.
    """
    try:
        return read_model(document, StepRecord, uri)
    except (NotJson, ValidationError) as error:
        raise InputError(f"{uri}: not the record of a step; run the step again") from error


@dataclass(frozen=True)
class Event:
    """An event in a step that runs in a different process or container.

    Attributes:
        kind: What happened.
        step: Name of the step.
        fields: ``finished``: record (URI), seconds. ``failed``: message, exit_code, report (URI or empty), stack.
    """

    kind: EventKind
    step: str
    fields: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """Return the event as one line of output."""
        return _MARK + json.dumps({"event": self.kind, "step": self.step, **self.fields})


class RunObserver(Protocol):
    """Shows a run in progress."""

    def started(self, step: str) -> None:
        """A step has started."""

    def cached(self, step: str) -> None:
        """A step was not run, because its result is in the cache."""

    def line(self, step: str, text: str) -> None:
        """A step has printed a line."""

    def finished(self, step: str, seconds: float) -> None:
        """A step has succeeded."""

    def failed(self, step: str, message: str, interrupted: bool = False) -> None:
        """A step has failed, or was interrupted."""


def parse_event(line: str) -> Event | None:
    """Return the event in a line of output, or None if it is an ordinary line."""
    text = line.strip()
    if not text.startswith(_MARK):
        return None
    try:
        fields = json.loads(text[len(_MARK) :])
        kind, step = fields.pop("event"), str(fields.pop("step"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return Event(kind, step, fields) if kind in get_args(EventKind) else None
