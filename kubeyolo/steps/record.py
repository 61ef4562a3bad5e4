"""What every step leaves at its output: report.html, then metrics.json, the record that says it is complete."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kubeyolo.bundle import MANIFEST_NAME as BUNDLE_NAME
from kubeyolo.catalogue import STEPS
from kubeyolo.data.manifest import MANIFEST_NAME as DATASET_NAME
from kubeyolo.errors import InputError
from kubeyolo.events import RECORD_NAME, REPORT_NAME, StepRecord, parse_record
from kubeyolo.index import STORE_NAME
from kubeyolo.storage.base import NotFound, Store
from kubeyolo.storage.integrity import sha256_bytes
from kubeyolo.storage.reference import check_pinned, pin, split_reference
from kubeyolo.storage.uri import join_uri, open_store, read_document, write_document
from kubeyolo.whole import is_whole

_OTHERS = {DATASET_NAME: "a data set", BUNDLE_NAME: "a bundle", STORE_NAME: "a store"}
"""What a folder holds by the name of its manifest."""


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start, to a hundredth."""
        return round(time.monotonic() - self._start, 2)


@dataclass(frozen=True)
class Finished:
    """The record of a step that is complete, and its reference."""

    record: StepRecord
    reference: str


def write_report(output: str, html: str) -> str:
    """Write a step's report and return its URI."""
    uri = join_uri(output, REPORT_NAME)
    write_document(uri, html.encode())
    return uri


def write_record(
    output: str,
    step: str,
    seconds: float,
    outputs: Mapping[str, str],
    metrics: Mapping[str, Any],
    report: str = "",
    conditions: Mapping[str, Any] | None = None,
) -> str:
    """Write a step's record, after everything else of the step, and return its reference.

    Where another process has written one of the same outputs in the meantime, that one stays: others may refer to it.
    """
    record = StepRecord(
        step=step,
        seconds=seconds,
        outputs=dict(outputs),
        metrics=dict(metrics),
        report=report,
        conditions=dict(conditions or {}),
    )
    document = record.model_dump_json(indent=1).encode()
    store, uri = open_store(output), join_uri(output, RECORD_NAME)
    while not store.create_bytes(RECORD_NAME, document):
        try:
            there, etag = store.read_version(RECORD_NAME)
        except NotFound:
            continue
        if _is_same_result(_read(there), _read(document)):
            return pin(uri, sha256_bytes(there))
        if store.replace_bytes(RECORD_NAME, document, etag):
            break
    return pin(uri, sha256_bytes(document))


def read_record(reference: str) -> StepRecord:
    """Read a step's record by its URI or its reference.

    Raises:
        InputError: There is none, it is not one, or its content is not that of the reference.
    """
    uri, digest = split_reference(reference)
    document = read_document(uri)
    check_pinned(uri, digest, sha256_bytes(document))
    return parse_record(document, uri)


def finished(output: str, step: str, is_same: Callable[[StepRecord], bool] | None = None) -> Finished | None:
    """Return the record of a step whose result lies whole at its output, or None when it has to work.

    Whole means: the record is there, and the report, and all that its outputs refer to with all of its files.

    Args:
        output: URI of the output.
        step: Name of the step.
        is_same: Tells whether a whole result is that of the work that is asked for; refuses what must stay.

    Raises:
        InputError: The store cannot be used, the output holds something else, or it has to work and the output cannot
            be written.
    """
    store = open_store(output)
    try:
        document = store.read_bytes(RECORD_NAME)
        record = _read(document)
    except NotFound:
        record = None
    _refuse_others(store, step, record)
    if record is None or not _is_complete(record, step, store) or not (is_same is None or is_same(record)):
        store.check_writable()
        return None
    print(f"{step}: the result of the same work is at {store.uri}, nothing to do", flush=True)
    return Finished(record, pin(store.uri_of(RECORD_NAME), sha256_bytes(document)))


def _refuse_others(store: Store, step: str, record: StepRecord | None) -> None:
    """Refuse an output that is the place of something else, which the step would write over."""
    held = f"the result of {record.step}" if record is not None and record.step in STEPS and record.step != step else ""
    for name, what in _OTHERS.items():
        held = what if store.exists(name) else held
    if held:
        raise InputError(f"{store.uri}: holds {held}; choose another output with --output")


def _is_complete(record: StepRecord, step: str, store: Store) -> bool:
    """Tell whether a record is that of a step that has worked in this store, with all that it refers to.

    One that was copied here from another store refers to that one.
    """
    expected = {name for name in STEPS[step].outputs if name != "record"}
    if record.step != step or not expected <= record.outputs.keys():
        return False
    if record.report and (record.report != store.uri_of(REPORT_NAME) or not store.exists(REPORT_NAME)):
        return False
    return all(is_whole(name, value) for name, value in record.outputs.items())


def _read(document: bytes) -> StepRecord | None:
    try:
        return parse_record(document, RECORD_NAME)
    except InputError:
        return None


def _is_same_result(one: StepRecord | None, other: StepRecord | None) -> bool:
    """Tell whether two records differ in times alone: speed and seconds are those of a machine."""
    return one is not None and other is not None and _without_times(one) == _without_times(other)


def _without_times(record: StepRecord) -> StepRecord:
    metrics = {name: value for name, value in record.metrics.items() if name != "images_per_second"}
    return record.model_copy(update={"seconds": 0.0, "metrics": metrics})
