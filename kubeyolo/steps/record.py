"""What every step leaves at its output: report.html, then metrics.json, the record that says it is complete."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from kubeyolo.errors import InputError
from kubeyolo.events import RECORD_NAME, REPORT_NAME, StepRecord
from kubeyolo.storage.uri import join_uri, read_document, write_document


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start, to a hundredth."""
        return round(time.monotonic() - self._start, 2)


def write_report(output: str, html: str) -> str:
    """Write a step's report and return its URI."""
    uri = join_uri(output, REPORT_NAME)
    write_document(uri, html.encode())
    return uri


def write_record(
    output: str, step: str, seconds: float, outputs: Mapping[str, str], metrics: Mapping[str, Any], report: str = ""
) -> str:
    """Write a step's record, after everything else of the step, and return its URI."""
    record = StepRecord(step=step, seconds=seconds, outputs=dict(outputs), metrics=dict(metrics), report=report)
    uri = join_uri(output, RECORD_NAME)
    write_document(uri, record.model_dump_json(indent=1).encode())
    return uri


def read_record(uri: str) -> StepRecord:
    """Read a step's record.

    Raises:
        InputError: There is none, or it is not one.
    """
    try:
        return StepRecord.model_validate_json(read_document(uri))
    except ValidationError as error:
        raise InputError(f"{uri}: not the record of a step; run the step again") from error
