"""The outcome of a step: in memory when the step returns, then stored as report.html, documents and metrics.json.

``metrics.json``, the record, is written last: it makes the result complete.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from kubeyolo.bundle import MANIFEST_NAME as BUNDLE_NAME
from kubeyolo.bundle import Bundle, read_bundle
from kubeyolo.catalogue import STEPS
from kubeyolo.data.dataset import Dataset
from kubeyolo.data.manifest import MANIFEST_NAME as DATASET_NAME
from kubeyolo.errors import InputError, WorkError
from kubeyolo.events import RECORD_NAME, REPORT_NAME, StepRecord, parse_record
from kubeyolo.index import STORE_NAME
from kubeyolo.storage.base import NotFound
from kubeyolo.storage.integrity import sha256_bytes
from kubeyolo.storage.place import Place, Stored
from kubeyolo.whole import is_whole

_OTHERS = {DATASET_NAME: "a data set", BUNDLE_NAME: "a bundle", STORE_NAME: "a store"}
"""Content of a folder, by the name of its manifest."""


class Stopwatch:
    """Measures the seconds since it was created."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start, to a hundredth."""
        return round(time.monotonic() - self._start, 2)


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """What a step returns. Its bundles and data sets are stored already; everything else is stored later.

    Attributes:
        step: Name of the step.
        seconds: How long it took.
        outputs: Its outputs, by their names in the catalogue.
        metrics: Its metrics, JSON values.
        html: Its report; empty if there is none.
        documents: Further files by name; the stem of a name is an output, which refers to the file.
        conditions: What the result depends on, by key; the façade fills it in.
        failure: Why the result is not good enough to be stored (only its report is stored); empty if it is good enough.
    """

    step: str
    seconds: float
    outputs: Mapping[str, str | Bundle | Dataset] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    html: str = ""
    documents: Mapping[str, bytes] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class StoredOutcome(Stored):
    """An outcome that is stored: just now, or by an earlier run of the same work.

    Attributes:
        record: ``metrics.json``.
        place: Where the record is, with the digest of its content.
        outcome: What the step has just returned; None if an earlier result was found.
    """

    record: StepRecord
    place: Place
    outcome: StepOutcome | None = None

    @property
    def output(self) -> Place:
        """The folder of the step's files."""
        return self.place.parent

    def report(self) -> bytes:
        """Return the report as HTML; empty if the step has no report."""
        if self.outcome is not None:
            return self.outcome.html.encode()
        return self.place.at(self.record.report).read() if self.record.report else b""

    def document(self, name: str) -> bytes:
        """Return a further file of the step."""
        return self.outcome.documents[name] if self.outcome is not None else (self.output / name).read()

    def bundle(self, name: str = "bundle") -> Bundle:
        """Return an output that is a bundle."""
        made = self.outcome.outputs[name] if self.outcome is not None else None
        return made if isinstance(made, Bundle) else read_bundle(self.place.at(self.record.outputs[name]))


def store_report(html: str, output: Place) -> str:
    """Store the report of a step and return its URI; empty if there is no report."""
    return (output / REPORT_NAME).write(html.encode()).uri if html else ""


def store_outcome(outcome: StepOutcome, output: Place) -> StoredOutcome:
    """Store a report and documents, then the record.

    If another process has stored a record with the same outputs in the meantime, that record stays: other records may
    refer to it.

    Raises:
        InputError: The store cannot be used.
        WorkError: The result is not good enough; only its report is stored.
    """
    report = store_report(outcome.html, output)
    if outcome.failure:
        raise WorkError(outcome.failure)
    outputs = {name: made if isinstance(made, str) else made.reference for name, made in outcome.outputs.items()}
    for name, document in outcome.documents.items():
        outputs[PurePosixPath(name).stem] = (output / name).write(document).reference
    record = StepRecord(
        step=outcome.step,
        seconds=outcome.seconds,
        outputs=outputs,
        metrics=dict(outcome.metrics),
        report=report,
        conditions=dict(outcome.conditions),
    )
    document = record.model_dump_json(indent=1).encode()
    store, place = output.store, output / RECORD_NAME
    while not store.create_bytes(RECORD_NAME, document):
        try:
            there, etag = store.read_version(RECORD_NAME)
        except NotFound:
            continue
        stored = _parsed(there)
        if stored is not None and _without_times(stored) == _without_times(parse_record(document, place.uri)):
            return StoredOutcome(record=stored, place=place.pinned(sha256_bytes(there)), outcome=outcome)
        if store.replace_bytes(RECORD_NAME, document, etag):
            break
    return StoredOutcome(record=record, place=place.pinned(sha256_bytes(document)), outcome=outcome)


def read_record(place: Place) -> StepRecord:
    """Read the record of a step.

    Raises:
        InputError: The record is missing or not a record, or its digest differs from that of the reference.
    """
    return parse_record(place.read(), place.uri)


def finished(output: Place, step: str, is_same: Callable[[StepRecord], bool] | None = None) -> StoredOutcome | None:
    """Return the stored outcome if the output is complete, or None if the step must run.

    An output is complete if it has the record and the report, and everything that the record refers to is complete.

    Args:
        output: The output.
        step: Name of the step.
        is_same: Tells whether a complete result is from the requested work; raises an error if it must stay.

    Raises:
        InputError: The store cannot be used, the output has different content, or the step must run and the output
            cannot be written.
    """
    store = output.store
    try:
        document = store.read_bytes(RECORD_NAME)
        record = _parsed(document)
    except NotFound:
        record = None
    _refuse_others(output, step, record)
    if record is None or not _is_complete(record, step, output) or not (is_same is None or is_same(record)):
        store.check_writable()
        return None
    print(f"{step}: the result of the same work is at {output}, nothing to do", flush=True)
    return StoredOutcome(record=record, place=(output / RECORD_NAME).pinned(sha256_bytes(document)))


def _refuse_others(output: Place, step: str, record: StepRecord | None) -> None:
    """Refuse an output with different content, which the step would overwrite."""
    content = ""
    if record is not None and record.step in STEPS and record.step != step:
        content = f"the result of {record.step}"
    for name, what in _OTHERS.items():
        content = what if output.store.exists(name) else content
    if content:
        raise InputError(f"{output}: holds {content}; choose another output with --output")


def _is_complete(record: StepRecord, step: str, output: Place) -> bool:
    """Tell whether a step has written a record in this store, and everything that the record refers to is complete.

    A record that was copied from another store refers to that store.
    """
    # A comparison of two bundles is not a step of a pipeline; its outputs are its documents.
    expected = {name for name in STEPS[step].outputs if name != "record"} if step in STEPS else set()
    if record.step != step or not expected <= record.outputs.keys():
        return False
    if record.report and (record.report != (output / REPORT_NAME).uri or not output.store.exists(REPORT_NAME)):
        return False
    return all(is_whole(name, output.at(value)) for name, value in record.outputs.items() if "://" in value)


def _parsed(document: bytes) -> StepRecord | None:
    try:
        return parse_record(document, RECORD_NAME)
    except InputError:
        return None


def _without_times(record: StepRecord) -> StepRecord:
    """Return a record without speed and duration, which differ between machines."""
    metrics = {name: value for name, value in record.metrics.items() if name != "images_per_second"}
    return record.model_copy(update={"seconds": 0.0, "metrics": metrics})
