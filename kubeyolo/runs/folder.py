"""The folder of a run on this machine: its reports, index page, summary, log and lock."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubeyolo.bundle import LEFT_OUT
from kubeyolo.catalogue import STEPS, steps_of
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.errors import InputError, KubeyoloError
from kubeyolo.evaluation.results import COCO_KEYS
from kubeyolo.events import StepRecord
from kubeyolo.report.index import Status, StepCard, index_page
from kubeyolo.storage.file_errors import file_errors, make_folder
from kubeyolo.storage.file_lock import locked
from kubeyolo.storage.integrity import appearing
from kubeyolo.storage.place import Place

LATEST = "latest"
LOG_NAME = "run.log"


@dataclass
class StepState:
    """The state of a step of a run."""

    status: Status = "pending"
    record: StepRecord | None = None
    message: str = ""
    report: str = ""


@dataclass
class RunState:
    """The state of a run: how it was started, and its steps by name, in the order of the catalogue.

    Attributes:
        name: Name of the run.
        model: Name of the detector.
        data: URI of the data set.
        pipeline: The compiled pipeline.
    """

    name: str
    model: str
    data: str
    pipeline: CompiledPipeline = field(default_factory=CompiledPipeline.named, repr=False)
    steps: dict[str, StepState] = field(init=False)

    def __post_init__(self) -> None:
        self.steps = {step.name: StepState() for step in steps_of(self.pipeline.tasks)}

    def metric(self, step: str, name: str) -> Any:
        """Return a value of a step's metrics by its dotted name, or None."""
        record = self.steps[step].record
        value: Any = record.metrics if record else None
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def numbers(self) -> dict[str, dict[str, float | None]]:
        """Return the COCO metrics of each network that a step of the run evaluates."""
        return {
            network: {key: self.metric(step, f"{prefix}.{key}".lstrip(".")) for key in COCO_KEYS}
            for step in self.steps
            for network, prefix in STEPS[step].networks.items()
        }

    def output(self, step: str, name: str) -> str:
        """Return an output of a step, without the digest if it is a reference; empty if the output is unknown."""
        record = self.steps[step].record
        text = record.outputs.get(name, "") if record else ""
        return Place.of(text).uri if "://" in text else text


class RunFolder:
    """``runs/<name>/``: index.html, reports, summary.json and run.log; ``runs/latest`` points at the newest run."""

    def __init__(self, runs: Path, name: str) -> None:
        self.path = runs.absolute() / name
        self._runs = runs.absolute()

    @property
    def index(self) -> Path:
        """Path of the index page."""
        return self.path / "index.html"

    @property
    def summary(self) -> Path:
        """Path of the summary, which exists only after a successful run."""
        return self.path / "summary.json"

    def open(self) -> None:
        """Create the folder and let ``latest`` point at it."""
        make_folder(self.path / "reports")
        with file_errors(self._runs):
            link = self._runs / f".{LATEST}-{uuid.uuid4().hex}"
            link.symlink_to(self.path.name)
            os.replace(link, self._runs / LATEST)

    def write(self, state: RunState) -> None:
        """Copy the existing reports, write the index page, and write the summary if every step has succeeded."""
        for step, entry in state.steps.items():
            uri = entry.record.report if entry.record else entry.report
            # An unreachable store is reported by the step that needs the store, not by a missing report.
            with contextlib.suppress(KubeyoloError):
                if uri:
                    _replace(self._report(step), Place.of(uri).read())
        facts = index_facts(state)
        cards = [self._card(state, step) for step in state.steps]
        _replace(self.index, index_page(state.name, cards, facts, state.pipeline.edges).encode())
        if all(entry.record for entry in state.steps.values()):
            _replace(self.summary, (json.dumps(summary(state), indent=1) + "\n").encode())
        else:
            self.summary.unlink(missing_ok=True)

    def _report(self, step: str) -> Path:
        return self.path / "reports" / f"{step}.html"

    def _card(self, state: RunState, step: str) -> StepCard:
        entry = state.steps[step]
        has_report = bool(entry.report or (entry.record and entry.record.report)) and self._report(step).is_file()
        values = {words: _shown(state.metric(step, metric)) for words, metric in STEPS[step].cards.items()}
        return StepCard(
            step=step,
            status=entry.status,
            seconds=entry.record.seconds if entry.record else None,
            report=f"reports/{step}.html" if has_report else None,
            values={name: value for name, value in values.items() if value is not None},
            note=entry.message,
        )


@contextlib.contextmanager
def run_lock(path: Path) -> Iterator[None]:
    """Hold the lock file of a run, which contains the process id of its holder.

    The kernel releases the lock when its holder dies, so a stale file never blocks a run. On a file system without
    locks, a second file next to it is the lock.

    Raises:
        InputError: A different process has the lock; the message has its process id.
    """
    make_folder(path.parent)
    # Opened for appending: until this process has the lock, the content belongs to a different process.
    with file_errors(path):
        file = path.open("a+")
    with file, contextlib.ExitStack() as locks:
        try:
            locks.enter_context(locked(file.fileno(), path, wait=False))
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise InputError(
                f"{path.parent.name}: this run is already running here (process {holder}); wait for it or stop it"
            ) from None
        # Read by processes that wait. On a full disk the id cannot be written, but this process still has the lock.
        with contextlib.suppress(OSError):
            file.truncate(0)
            os.write(file.fileno(), f"{os.getpid()}\n".encode())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                file.truncate(0)


def summary(state: RunState) -> dict[str, Any]:
    """Return the content of ``summary.json`` for a successful run; metrics without ground truth are null."""
    return {
        "model": state.model,
        "dataset": {
            "digest": state.output("validate_dataset", "digest"),
            "findings": state.metric("validate_dataset", "findings"),
        },
        "warnings": _warnings(state),
        "evaluate": {key: state.metric("evaluate", key) for key in COCO_KEYS},
        "export": {"onnx": {"AP": state.metric("export_model", "onnx.AP")}},
        "quantize": {"int8": {"AP": state.metric("quantize", "int8.AP")}, **_left_out(state)},
        "bundle": state.output("publish", "bundle"),
        "seconds": {step: entry.record.seconds for step, entry in state.steps.items() if entry.record},
    }


def _left_out(state: RunState) -> dict[str, Any]:
    """Return why the int8 network was left out; empty if it was not."""
    reason = state.metric("quantize", LEFT_OUT)
    return {LEFT_OUT: reason} if reason else {}


def _warnings(state: RunState) -> list[str]:
    """Return the warnings of all steps; each starts with the name of its step."""
    return [f"{step}: {line}" for step in state.steps for line in state.metric(step, "warnings") or ()]


def index_facts(state: RunState) -> dict[str, Any]:
    """Return the values for the index page: names, and the part of the summary that is already known."""
    facts = summary(state)
    facts["dataset"] = {
        "name": state.metric("validate_dataset", "name"),
        "digest": facts["dataset"]["digest"],
        "source": state.data,
    }
    if not state.steps["evaluate"].record:
        facts["evaluate"] = {}
    return facts


def _shown(value: object) -> object:
    """Return numbers that are too small for three decimals as text with an exponent; return other values unchanged."""
    return f"{value:.1e}" if isinstance(value, float) and 0 < abs(value) < 5e-4 else value


def _replace(path: Path, data: bytes) -> None:
    with appearing(path, durable=False) as part:
        part.write_bytes(data)
