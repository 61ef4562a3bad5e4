"""The folder of a run on this machine: its reports, index page, summary and log."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubeyolo.catalogue import STEPS, steps_of
from kubeyolo.compiled.read import edges_of, pipeline_text, task_names
from kubeyolo.errors import KubeyoloError
from kubeyolo.evaluation.results import COCO_KEYS
from kubeyolo.events import StepRecord
from kubeyolo.report.index import Status, StepCard, index_page
from kubeyolo.storage.file_errors import file_errors, make_folder
from kubeyolo.storage.integrity import appearing
from kubeyolo.storage.reference import split_reference
from kubeyolo.storage.uri import read_document

LATEST = "latest"
LOG_NAME = "run.log"


@dataclass
class StepState:
    """What is known of a step of a run."""

    status: Status = "pending"
    record: StepRecord | None = None
    message: str = ""
    report: str = ""


@dataclass
class RunState:
    """What is known of a run: how it was started, and its steps by name, in the order of the catalogue.

    Attributes:
        name: Its name.
        model: Name of the detector.
        data: Where the data lies.
        pipeline: The compiled pipeline.
    """

    name: str
    model: str
    data: str
    pipeline: str = field(default_factory=pipeline_text, repr=False)
    steps: dict[str, StepState] = field(init=False)

    def __post_init__(self) -> None:
        self.steps = {step.name: StepState() for step in steps_of(task_names(self.pipeline))}

    def metric(self, step: str, name: str) -> Any:
        """Return a value of a step's metrics by its dotted place, or None."""
        record = self.steps[step].record
        value: Any = record.metrics if record else None
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def numbers(self) -> dict[str, dict[str, float | None]]:
        """Return the COCO numbers of each network that a step of the run measures."""
        return {
            network: {key: self.metric(step, f"{place}.{key}".lstrip(".")) for key in COCO_KEYS}
            for step in self.steps
            for network, place in STEPS[step].networks.items()
        }

    def output(self, step: str, name: str) -> str:
        """Return an output of a step, a reference without its digest; empty where it is not known."""
        record = self.steps[step].record
        return split_reference(record.outputs.get(name, ""))[0] if record else ""


class RunFolder:
    """``runs/<name>/``: index.html, reports, summary.json and run.log; ``runs/latest`` points at the newest."""

    def __init__(self, runs: Path, name: str) -> None:
        self.path = runs.absolute() / name
        self._runs = runs.absolute()

    @property
    def index(self) -> Path:
        """Path of the index page."""
        return self.path / "index.html"

    @property
    def summary(self) -> Path:
        """Path of the summary, there only after a run that succeeded."""
        return self.path / "summary.json"

    def open(self) -> None:
        """Make the folder and let ``latest`` point at it."""
        make_folder(self.path / "reports")
        with file_errors(self._runs):
            link = self._runs / f".{LATEST}-{uuid.uuid4().hex}"
            link.symlink_to(self.path.name)
            os.replace(link, self._runs / LATEST)

    def write(self, state: RunState) -> None:
        """Copy the reports that there are and write the index page, and the summary when every step has ended well."""
        for step, known in state.steps.items():
            uri = known.record.report if known.record else known.report
            # A store that does not answer any more is told by the step that found it so, not by a missing report.
            with contextlib.suppress(KubeyoloError):
                if uri:
                    _replace(self._report(step), read_document(uri))
        facts = index_facts(state)
        cards = [self._card(state, step) for step in state.steps]
        _replace(self.index, index_page(state.name, cards, facts, edges_of(state.pipeline)).encode())
        if all(known.record for known in state.steps.values()):
            _replace(self.summary, (json.dumps(summary(state), indent=1) + "\n").encode())
        else:
            self.summary.unlink(missing_ok=True)

    def _report(self, step: str) -> Path:
        return self.path / "reports" / f"{step}.html"

    def _card(self, state: RunState, step: str) -> StepCard:
        known = state.steps[step]
        has_report = bool(known.report or (known.record and known.record.report)) and self._report(step).is_file()
        values = {words: _shown(state.metric(step, place)) for words, place in STEPS[step].cards.items()}
        return StepCard(
            step=step,
            status=known.status,
            seconds=known.record.seconds if known.record else None,
            report=f"reports/{step}.html" if has_report else None,
            values={name: value for name, value in values.items() if value is not None},
            note=known.message,
        )


def summary(state: RunState) -> dict[str, Any]:
    """Return what ``summary.json`` says of a run that succeeded; numbers without ground truth are null."""
    return {
        "model": state.model,
        "dataset": {
            "digest": state.output("validate_dataset", "digest"),
            "findings": state.metric("validate_dataset", "findings"),
        },
        "warnings": _warnings(state),
        "evaluate": {key: state.metric("evaluate", key) for key in COCO_KEYS},
        "export": {"onnx": {"AP": state.metric("export_model", "onnx.AP")}},
        "quantize": {"int8": {"AP": state.metric("quantize", "int8.AP")}},
        "bundle": state.output("publish", "bundle"),
        "seconds": {step: known.record.seconds for step, known in state.steps.items() if known.record},
    }


def _warnings(state: RunState) -> list[str]:
    """Return what the steps warn of, with the step in front."""
    return [f"{step}: {line}" for step in state.steps for line in state.metric(step, "warnings") or ()]


def index_facts(state: RunState) -> dict[str, Any]:
    """Return the facts of the index page: the summary, as far as it goes, with names."""
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
    """Return tiny numbers as text with an exponent, where three decimals would show nothing; the rest as it is."""
    return f"{value:.1e}" if isinstance(value, float) and 0 < abs(value) < 5e-4 else value


def _replace(path: Path, data: bytes) -> None:
    with appearing(path, durable=False) as part:
        part.write_bytes(data)
