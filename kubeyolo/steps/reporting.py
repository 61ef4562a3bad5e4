"""How a step in a separate process reports its progress, and how it ends after a failure.

Events go to standard output, where a run on this machine reads them. A failure is one line on standard error, a
``failure.json`` in the step's output, and the exit code (1 failed work, 2 bad input).
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from kubeyolo.documents import read_json
from kubeyolo.errors import InputError, InterruptedWork, KubeyoloError, WorkError, message_line, one_line
from kubeyolo.events import FAILURE_NAME, REPORT_NAME, Event
from kubeyolo.output_streams import patient_streams
from kubeyolo.steps.guard import stops_with_its_run
from kubeyolo.steps.outcome import StoredOutcome
from kubeyolo.storage.base import Store
from kubeyolo.storage.cache import set_matplotlib_folder
from kubeyolo.storage.file_errors import known_error
from kubeyolo.storage.place import Place

# Kubeflow sets them: the number of the try, if the step is retried, and the name of the pod.
_RETRY_INDEX, _POD_NAME = "KFP_RETRY_INDEX", "KFP_POD_NAME"


class FileArtifact(Protocol):
    """The parts of kfp's HTML and Markdown that are used."""

    path: str


class HandleArtifact(Protocol):
    """The parts of kfp's Dataset and Model that are used."""

    path: str
    metadata: dict[str, Any]


class MetricsArtifact(Protocol):
    """The part of kfp's Metrics that is used."""

    path: str

    def log_metric(self, metric: str, value: float) -> None:
        """Set one metric."""


class ConfusionArtifact(Protocol):
    """The part of kfp's ClassificationMetrics that is used."""

    path: str

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None:
        """Set the confusion matrix."""


@dataclass
class StepReporter:
    """Reports what a step does. A failure is written to ``output`` if the output is set."""

    step: str
    output: Place | None = None
    record: str = ""
    stop_requested: threading.Event = field(default_factory=threading.Event)

    def write_to(self, output: Place) -> None:
        """Set the output of the step, and remove the failure.json of an earlier try.

        Record and report stay until they are replaced: other runs of the same work share the output.
        """
        _check_try(output.store)
        self.output = output
        output.store.delete(FAILURE_NAME)

    def publish(self, stored: StoredOutcome, report: FileArtifact, index: str = "") -> None:
        """Remember the record of the step, and fill the artifact of its report.

        Args:
            stored: What the step has stored.
            report: Receives the HTML; empty if the step has no report.
            index: URI that receives a copy of the record; empty if no copy is needed.
        """
        self.keep(stored, index)
        _write_artifact(report.path, stored.report())

    def keep(self, stored: StoredOutcome, index: str = "") -> None:
        """Remember the record of the step, and copy it to the index if there is one."""
        self.record = stored.reference
        if index:
            stored.place.at(index).write(stored.record.model_dump_json(indent=1).encode())

    def publish_text(self, text: str, artifact: FileArtifact) -> None:
        """Fill an artifact of Markdown."""
        _write_artifact(artifact.path, text.encode())

    def publish_handle(self, place: Place, artifact: HandleArtifact, **figures: Any) -> None:
        """Fill an artifact that stands for a data set or a bundle: its URI, its digest, and metrics as metadata.

        The metadata contains no times, so that the same result is the same artifact.
        """
        facts = {"store_uri": place.uri, "digest": place.digest, **figures}
        facts = {name: value for name, value in facts.items() if value is not None}
        artifact.metadata.update(facts)
        _write_artifact(artifact.path, json.dumps(facts, indent=1).encode())

    def publish_summary(self, figures: Mapping[str, float | None], artifact: MetricsArtifact) -> None:
        """Fill the table of metrics that Kubeflow's comparison page shows."""
        for name, value in figures.items():
            if value is not None:
                artifact.log_metric(name, round(float(value), 4))
        # kfp's local cache ignores a finished step if the file of one of its artifacts is missing.
        _write_artifact(artifact.path, b"")

    def publish_confusion(self, document: bytes, artifact: ConfusionArtifact) -> None:
        """Fill the artifact that Kubeflow draws as a confusion matrix."""
        content = read_json(document, "confusion matrix")
        artifact.log_confusion_matrix(content["categories"], content["matrix"])
        _write_artifact(artifact.path, b"")

    def say(self, event: Event) -> None:
        """Print an event as a line of its own."""
        print(event.line(), flush=True)


def _check_try(store: Store) -> None:
    """Fail at once if the work of the previous try failed: only a step whose pod was lost is worth a retry.

    Raises:
        InputError: The earlier try had bad input.
        WorkError: The work of the earlier try failed.
    """
    index, run = os.environ.get(_RETRY_INDEX, ""), _run()
    if index in ("", "0") or not run or not store.exists(FAILURE_NAME):
        return
    failure = read_json(store.read_bytes(FAILURE_NAME), store.uri_of(FAILURE_NAME))
    if failure.get("run") == run:
        raise (InputError if failure["exit_code"] == InputError.exit_code else WorkError)(failure["message"])


def _run() -> str:
    """Return the workflow of this step on a cluster, whose pods are named after it; empty outside a cluster."""
    return re.split(r"-(?:retry-)?system-", os.environ.get(_POD_NAME, ""), maxsplit=1)[0]


def _write_artifact(path: str, data: bytes) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(data)


@contextmanager
def reported(step: str) -> Iterator[StepReporter]:
    """Report when a step starts, ends or fails; after a failure the process ends with its exit code."""
    # The program that reads these lines may have ended; a training must still write its checkpoint.
    with patient_streams():
        yield from _reported(step)


def _reported(step: str) -> Iterator[StepReporter]:
    reporter = StepReporter(step)
    set_matplotlib_folder()
    reporter.say(Event("started", step))
    start = time.monotonic()
    try:
        with stops_with_its_run() as reporter.stop_requested:
            yield reporter
    except KubeyoloError as error:
        _fail(reporter, str(error), error.exit_code)
    except Exception as error:
        known = known_error(error)
        if known is not None:
            _fail(reporter, f"{step}: {known}", known.exit_code)
        _fail(reporter, f"{step}: unexpected {type(error).__name__}: {one_line(error)}", 1)
    seconds = round(time.monotonic() - start, 2)
    reporter.say(Event("finished", step, {"record": reporter.record, "seconds": seconds}))


def _fail(reporter: StepReporter, message: str, exit_code: int) -> None:
    stack, message = traceback.format_exc(), message_line(message)
    report = _write_failure(reporter, message, exit_code, stack)
    fields = {"message": message, "exit_code": exit_code, "report": report, "stack": stack}
    reporter.say(Event("failed", reporter.step, fields))
    print(f"error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(exit_code)


def _write_failure(reporter: StepReporter, message: str, exit_code: int, stack: str) -> str:
    """Write failure.json; return the URI of the report if the step wrote a report before it failed."""
    if reporter.output is None:
        return ""
    # A step that received a stop signal has not failed, whatever error follows: its pod was drained, and it is retried.
    is_stopped = reporter.stop_requested.is_set() or exit_code == InterruptedWork.exit_code
    run = "" if is_stopped else _run()
    failure = {"step": reporter.step, "message": message, "exit_code": exit_code, "stack": stack, "run": run}
    try:
        store = reporter.output.impatient().store
        store.write_bytes(FAILURE_NAME, json.dumps(failure, indent=1).encode())
        return store.uri_of(REPORT_NAME) if store.exists(REPORT_NAME) else ""
    except KubeyoloError:
        return ""  # The store may be what failed; the line on standard error names the error.
