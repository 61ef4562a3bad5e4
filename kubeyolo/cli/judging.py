"""The part of ``kubeyolo gate`` and ``kubeyolo pipeline gate`` that both share: limits, verdict, files, exit codes."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from kubeyolo.cli.gate_files import BothResamples, junit_xml, markdown_error, markdown_summary
from kubeyolo.config.load import load_config
from kubeyolo.errors import InputError, KubeyoloError, one_line, split_pair
from kubeyolo.evaluation.intervals import resamples_in
from kubeyolo.evaluation.limits import Numbers, Verdict, check_numbers
from kubeyolo.evaluation.results import COCO_KEYS
from kubeyolo.events import StepRecord
from kubeyolo.regular_files import open_regular
from kubeyolo.storage.location import FileLocation
from kubeyolo.storage.place import Place

FAILED = 1
_NAME = "kubeyolo gate"
_DEFAULT_DROP = 1.0

GivenBundleOption = Annotated[
    str, typer.Option("--bundle", metavar="URI", help="Bundle to evaluate, or a pointer to it.")
]
BaselineOption = Annotated[
    str,
    typer.Option("--baseline", metavar="URI", help="Bundle or latest.json to compare with, on the same images."),
]
SplitOption = Annotated[
    str, typer.Option("--split", metavar="NAME", help="Split to evaluate on; by default evaluate.split.")
]
MinApOption = Annotated[float | None, typer.Option("--min-ap", min=0, max=1, help="Lower limit of AP, 0 to 1.")]
LeastOption = Annotated[
    list[str] | None,
    typer.Option("--min", metavar="KEY=VALUE", help="Lower limit of a COCO metric, such as AP50=0.8."),
]
MaxDropOption = Annotated[
    float | None,
    typer.Option("--max-drop", help="Largest loss of AP against the baseline, in points (AP x 100); by default 1."),
]
JunitOption = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Where to write JUnit XML.")]
SummaryOption = Annotated[
    Path | None, typer.Option("--summary", metavar="FILE", help="File to append a Markdown summary to.")
]
ReportOption = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", help="Where to write the report of the bundle's evaluation, as HTML."),
]


@dataclass(frozen=True)
class Evaluations:
    """The evaluations that a gate judges.

    Attributes:
        bundle: Record of the evaluation of the bundle.
        baseline: Record of the evaluation of the baseline; None if there is no baseline.
        facts: The name of the run, or the stored data set, for the JSON and the summary.
    """

    bundle: StepRecord
    baseline: StepRecord | None
    facts: Mapping[str, str]

    @property
    def resamples(self) -> BothResamples:
        """The resamples of the bundle and of the baseline; None for those that are not known."""
        baseline = resamples_in(self.baseline.metrics) if self.baseline else None
        return resamples_in(self.bundle.metrics), baseline


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A gate, as its options describe it.

    Attributes:
        links: URIs of the bundle, the data and the baseline, by their names.
        min_ap: Lower limit of AP; None if there is no limit.
        least: Lower limits of COCO metrics, as ``KEY=VALUE``.
        max_drop: Largest loss of AP in points; None for the default.
        junit: JUnit file to write; None for no file. The same holds for ``summary`` (Markdown) and ``report`` (HTML).
        summary: File to append the Markdown summary to.
        report: File for the report of the evaluation, with the checks of this gate.
        config_file: YAML file of settings; None for no file.
        sets: Pairs of ``--set``.
        as_json: Whether to print the result as JSON.
    """

    links: Mapping[str, str]
    min_ap: float | None
    least: Sequence[str]
    max_drop: float | None
    junit: Path | None
    summary: Path | None
    report: Path | None
    config_file: Path | None
    sets: Sequence[str]
    as_json: bool

    def judge(self, evaluate: Callable[[], Evaluations]) -> None:
        """Check the limits, evaluate, compare, and write and print the verdict.

        Args:
            evaluate: Evaluates the models; called once, after options and files are checked.

        Raises:
            InputError: A limit, a setting or a file is wrong, or the model could not be evaluated.
            Exit: A limit is missed.
        """
        files = _Files(self.junit, self.summary, self.report, self.links, self.config_file)
        files.begin()
        try:
            judge = load_config(None, self.config_file, self.sets).evaluate.judge  # refuses wrong settings
            limits, drop = _limits(self.min_ap, self.least), self._largest_drop()
            check_numbers({}, {} if "baseline" in self.links else None, limits, drop, judge)  # refuses wrong limits
            found = evaluate()
            numbers = _coco_numbers(found.bundle)
            compared = _coco_numbers(found.baseline) if found.baseline else None
            verdict = check_numbers(numbers, compared, limits, drop, judge, found.resamples)
            files.checked(verdict, numbers, compared, found)
        except BaseException as error:
            files.failed(error)
            if isinstance(error, Exception) and getattr(error, "exit_code", FAILED) == FAILED:
                # A failed store, or a bug, says nothing about the quality of the model.
                raise InputError(f"the model could not be evaluated: {one_line(error)}") from error
            raise
        self._print(verdict, found, numbers, compared)
        if not verdict.passed:
            raise typer.Exit(FAILED)

    def _largest_drop(self) -> float:
        if self.max_drop is not None:
            return self.max_drop
        return _DEFAULT_DROP if "baseline" in self.links else math.inf

    def _print(self, verdict: Verdict, found: Evaluations, numbers: Numbers, compared: Numbers | None) -> None:
        if self.as_json:
            result = {"evaluate": numbers} | ({"evaluate_baseline": compared} if compared is not None else {})
            checks = [{"check": each.name, "passed": each.passed, "message": each.message} for each in verdict.checks]
            tasks = zip(("evaluate", "evaluate_baseline"), found.resamples, strict=True)
            intervals = {task: each.intervals() for task, each in tasks if each}
            document = {"passed": verdict.passed, "checks": checks, **found.facts, **result, "intervals": intervals}
            print(json.dumps(document, indent=1))
            return
        for check in verdict.checks:
            print(f"{'✓' if check.passed else '✗'} {check.name}: {check.message}")
        if found.bundle.report:
            print(f"report {self.report or found.bundle.report}")


@dataclass
class _Files:
    """The files that a CI reads: the result of the gate, or the reason why there is no result."""

    junit: Path | None
    summary: Path | None
    report: Path | None
    links: Mapping[str, str]
    config_file: Path | None = None
    start: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Refuse files that cannot be written, and replace the results of an earlier gate.

        If the command is killed, the JUnit file reports that the evaluation has not ended. There is no report until
        there is an evaluation.
        """
        self._check_distinct()
        self._write(junit_xml(_NAME, Verdict(), 0.0, "the evaluation has not ended"), "")
        if self.report is not None:
            _write(self.report, "w", "")
            if self.report.is_file():  # not a device
                self.report.unlink()

    def checked(self, verdict: Verdict, numbers: Numbers, baseline: Numbers | None, found: Evaluations) -> None:
        """Write the checked limits and the metrics, and the report of the evaluation with the checked limits."""
        if self.report is not None:
            _write(self.report, "w", _report(found.bundle, verdict))
        self._write(
            junit_xml(_NAME, verdict, self._seconds, "", numbers, baseline, found.resamples),
            markdown_summary(_NAME, verdict, numbers, baseline, {**self.links, **found.facts}, found.resamples),
        )

    def failed(self, error: BaseException) -> None:
        """Write why no limit could be checked."""
        message = one_line(error) if isinstance(error, KubeyoloError) else ""
        why = message or ("interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}")
        # The disk may have become full since: report the original failure.
        with suppress(InputError):
            self._write(junit_xml(_NAME, Verdict(), self._seconds, why), markdown_error(_NAME, why, self.links))

    def _check_distinct(self) -> None:
        """Refuse two results in one file, or a result in place of an input; devices such as /dev/null are allowed."""
        options = {"--junit": self.junit, "--summary": self.summary, "--report": self.report}
        first: dict[str, str] = {}
        for option, path in options.items():
            if path is None or (os.path.exists(path) and not os.path.isfile(path)):
                continue
            other = first.setdefault(os.path.realpath(path), option)
            if other != option:
                raise InputError(f"{other} and {option} name the same file, {path}; give each a file of its own")
            self._refuse_input(option, path)

    def _refuse_input(self, option: str, path: Path) -> None:
        """Refuse a file of an input; the results of an earlier gate may stand in the folder of an input."""
        paths: dict[str, Path] = {}
        for name, uri in self.links.items():
            with suppress(InputError):  # reported when the input is opened, after the files have been written
                location = Place.of(uri).location
                if isinstance(location, FileLocation):
                    paths[name] = location.path
        if self.config_file is not None:
            paths["--config"] = self.config_file
        real = Path(os.path.realpath(path))
        for name, each in paths.items():
            if real.is_relative_to(os.path.realpath(each)) and real.is_file() and not _is_result(real):
                raise InputError(f"{option} {path} is a file of the input {name}; choose another file")

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self.start

    def _write(self, junit: str, summary: str) -> None:
        """Replace the JUnit file, and append to the summary: a CI collects summaries of several tools in one file."""
        for path, mode, text in ((self.junit, "w", junit), (self.summary, "a", summary)):
            if path is not None:
                _write(path, mode, text)


def _is_result(path: Path) -> bool:
    """Tell whether a file may be a result of an earlier gate: JUnit XML, or a page or a summary by its ending."""
    if path.suffix in (".html", ".md"):
        return True
    with open_regular(path) as file:
        return b"<testsuites" in file.read(200)


def split_pairs(split: str) -> tuple[str, ...]:
    """Return the pair of ``--set`` that ``--split`` stands for."""
    return (f"evaluate.split={json.dumps(split)}",) if split else ()


def _write(path: Path, mode: str, text: str) -> None:
    try:
        # Names of files may have bytes that are not text.
        with path.open(mode, encoding="utf-8", errors="replace") as file:
            file.write(text)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def _report(record: StepRecord, verdict: Verdict) -> str:
    """Return the stored report of an evaluation with the checks of a gate."""
    from kubeyolo.report.page import with_verdict

    if not record.report:
        raise InputError("the evaluation has no stored report; omit --report")
    return with_verdict(Place.of(record.report).read().decode(), verdict)


def _coco_numbers(record: StepRecord) -> dict[str, float | None]:
    return {key: record.metrics.get(key) for key in COCO_KEYS}


def _limits(min_ap: float | None, pairs: Sequence[str]) -> dict[str, float]:
    limits = {} if min_ap is None else {"AP": min_ap}
    for pair in pairs:
        key, text = split_pair(pair, "--min", "AP50=0.8")
        try:
            limits[key] = float(text)
        except ValueError:
            limits[key] = math.nan
        if not 0 <= limits[key] <= 1:
            raise InputError(f"--min {pair!r}: expected a COCO metric and a value from 0 to 1, such as AP50=0.8")
    return limits
