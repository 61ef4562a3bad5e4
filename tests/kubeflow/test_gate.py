"""What is written about limits on COCO numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from kubeyolo.cli import pipeline_gate as command
from kubeyolo.cli.app import main
from kubeyolo.cli.gate_files import junit_xml, markdown_summary
from kubeyolo.cli.judging import Evaluations
from kubeyolo.errors import InputError
from kubeyolo.evaluation.intervals import Resamples
from kubeyolo.evaluation.limits import check_numbers
from kubeyolo.evaluation.results import COCO_KEYS
from kubeyolo.events import StepRecord
from kubeyolo.kubeflow.follow import TerminatedRun

NUMBERS = dict(zip(COCO_KEYS, [0.512, 0.83, 0.6, None, 0.5, 0.7, 0.3, 0.6, 0.65, None, 0.6, 0.8], strict=True))


def test_junit_has_a_case_for_each_check() -> None:
    verdict = check_numbers(NUMBERS, {"AP": 0.6}, {"AP": 0.5}, 1.0)
    suites = ElementTree.fromstring(junit_xml("gate <1>", verdict, 12.34))
    (suite,) = suites
    assert suite.attrib["name"] == "gate <1>"
    assert {key: suite.attrib[key] for key in ("tests", "failures", "errors", "time")} == {
        "tests": "2",
        "failures": "1",
        "errors": "0",
        "time": "12.3",
    }
    first, second = suite
    assert first.attrib["name"] == "AP >= 0.5" and first.find("failure") is None
    failure = second.find("failure")
    assert failure is not None and "it loses 8.80 points" in failure.attrib["message"]


def test_the_summary_has_all_numbers_side_by_side() -> None:
    verdict = check_numbers(NUMBERS, {"AP": 0.5, "AP50": None}, {"AP": 0.6}, 1.0)
    text = markdown_summary("gate", verdict, NUMBERS, {"AP": 0.5, "AP50": None}, {"bundle": "minio://m/b"})
    assert text.startswith("## ❌ gate\n")
    assert "| `AP >= 0.6` | ❌ | AP is 0.5120, at least 0.6 is required |" in text
    assert "| AP | 0.5120 | 0.5000 | +1.20 |" in text
    assert "| AP50 | 0.8300 | – | – |" in text
    assert "- bundle: `minio://m/b`" in text
    hostile = markdown_summary("gate", verdict, NUMBERS, None, {"data": "a`<b>``\n# c"})
    assert "- data: ``` a`<b>`` # c ```" in hostile
    alone = markdown_summary("gate", check_numbers(NUMBERS, least={"AP": 0.5}), NUMBERS)
    assert alone.startswith("## ✅ gate\n") and "baseline" not in alone
    assert sum(line.startswith(tuple(f"| {key} |" for key in COCO_KEYS)) for line in alone.splitlines()) == 12


def resamples_of(ap: float, spread: float, images: int = 100) -> Resamples:
    """Return resamples whose AP spreads around a value in the same way for every model."""
    around = ap + spread * np.linspace(-1, 1, 101)
    about = {"images": images, "images_with_objects": images, "drawn_from": "same"}
    return Resamples.of({"AP": np.concatenate([[ap], around])}, **about)


BOTH = (resamples_of(0.512, 0.05), resamples_of(0.52, 0.04))


def test_junit_and_summary_have_all_numbers_with_their_intervals() -> None:
    baseline = NUMBERS | {"AP": 0.52}
    verdict = check_numbers(NUMBERS, baseline, {"AP": 0.5}, 1.0, "interval", BOTH)
    (suite,) = ElementTree.fromstring(junit_xml("gate", verdict, 1.0, "", NUMBERS, baseline, BOTH))
    values = {each.attrib["name"]: each.attrib["value"] for each in suite.iter("property")}
    assert {key: values[key] for key in COCO_KEYS} == {
        key: "–" if value is None else f"{value:.4f}" for key, value in NUMBERS.items()
    }
    assert values["baseline AP"] == "0.5200" and len(values) == 24 + 3
    assert values["AP, 95 % interval"] == "0.4549 to 0.5691"
    assert values["points of AP, 95 % interval"] == "-1.94 to +0.34"
    assert [case.findtext("system-out") for case in suite.iter("testcase")] == [c.message for c in verdict.checks]
    text = markdown_summary("gate", verdict, NUMBERS, baseline, None, BOTH)
    assert "| | model | baseline | points | model, 95 % interval | points, 95 % interval |" in text
    assert "| AP | 0.5120 | 0.5200 | -0.80 | 0.4549 to 0.5691 | -1.94 to +0.34 |" in text
    assert "| AP75 | 0.6000 | 0.6000 | +0.00 | – | – |" in text
    assert "| AP | 0.5120 | 0.4549 to 0.5691 |" in markdown_summary("gate", verdict, NUMBERS, None, None, BOTH)


class Gate:
    """The command, and the files that it writes; what is evaluated is given by the test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.junit, self.summary = folder / "gate.xml", folder / "gate.md"
        self.end: BaseException | dict[str, float | None] = NUMBERS
        self.baseline: dict[str, float | None] = {}
        self.page = ""
        self.resamples: dict[str, Resamples] = {}
        self.seen: list[str] = []
        monkeypatch.setattr(command, "_evaluate", self._evaluate)

    def _evaluate(self, *arguments: Any) -> Evaluations:
        self.seen.append(self.junit.read_text())
        if isinstance(self.end, BaseException):
            raise self.end
        metrics = {**self.end, **self._resamples("evaluate")}
        found = StepRecord(step="evaluate", seconds=1.0, metrics=metrics, report=self.page)
        metrics = {**self.baseline, **self._resamples("evaluate_baseline")}
        baseline = StepRecord(step="evaluate", seconds=1.0, metrics=metrics) if self.baseline else None
        return Evaluations(found, baseline, {"run": "evaluation-1"})

    def _resamples(self, task: str) -> dict[str, Any]:
        return {"resamples": self.resamples[task].model_dump()} if task in self.resamples else {}

    def call(self, *limits: str) -> int:
        places = ("--bundle", "minio://m/new", "--data", "minio://d/x", "--store", "minio://s")
        files = ("--junit", str(self.junit), "--summary", str(self.summary))
        with pytest.raises(SystemExit) as ended:
            main(["pipeline", "gate", *places, *files, *limits])
        return int(ended.value.code or 0)

    def suite(self, text: str = "") -> ElementTree.Element:
        (suite,) = ElementTree.fromstring(text or self.junit.read_text())
        return suite


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gate:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    return Gate(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        (
            InputError("could not be evaluated: \x1b[31mno\x00 <bundle>\x1b[0m"),
            2,
            r"evaluated: \x1b[31mno\x00 <bundle>",
        ),
        (TerminatedRun("run evaluation-1 (17) was terminated"), 3, "run evaluation-1 (17) was terminated"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("what nobody expected"), 2, "RuntimeError: what nobody expected"),
    ],
)
def test_a_gate_that_could_not_evaluate_says_so_in_its_files(
    gate: Gate, end: BaseException, code: int, said: str
) -> None:
    gate.end = end
    gate.junit.write_text("what an earlier gate has left")
    gate.summary.write_text("# Of another tool\n")
    assert gate.call("--min-ap", "0.5") == code
    suite = gate.suite()
    assert [suite.attrib[key] for key in ("tests", "failures", "errors")] == ["1", "0", "1"]
    (case,) = suite
    error = case.find("error")
    assert case.attrib["name"] == "evaluation" and error is not None and said in error.attrib["message"]
    summary = gate.summary.read_text()
    assert summary.startswith("# Of another tool\n## ❌ kubeyolo gate\n\nThe model could not be evaluated:")
    assert said.split()[-1] in summary and "- bundle: `minio://m/new`" in summary
    # And when it is killed on the way.
    (before,) = gate.seen
    assert gate.suite(before).attrib["errors"] == "1"


def test_limits_that_are_refused_are_in_the_files(gate: Gate) -> None:
    assert gate.call("--min", "AP5=0.3") == 2
    assert not gate.seen
    error = gate.suite().find("testcase/error")
    assert error is not None and "did you mean 'AP50'" in error.attrib["message"]
    assert "did you mean 'AP50'" in gate.summary.read_text()


@pytest.mark.parametrize(("least", "code", "failures"), [("0.5", 0, "0"), ("0.6", 1, "1")])
def test_a_gate_that_has_compared_leaves_the_checks_alone(gate: Gate, least: str, code: int, failures: str) -> None:
    assert gate.call("--min-ap", least) == code
    suite = gate.suite()
    assert [suite.attrib[key] for key in ("tests", "failures", "errors")] == ["1", failures, "0"]
    assert gate.summary.read_text().count("kubeyolo gate") == 1
    assert "- run: `evaluation-1`" in gate.summary.read_text()


NOISE, BEYOND = 4e-7, 6e-7


@pytest.mark.parametrize("kind", ["least", "drop"])
@pytest.mark.parametrize(
    ("out", "passes"),
    [(-0.01, True), (-BEYOND, True), (0.0, True), (NOISE, True), (BEYOND, False), (0.01, False), (None, False)],
)
def test_files_and_exit_code_say_the_same_at_each_bound(
    gate: Gate, capsys: pytest.CaptureFixture[str], kind: str, out: float | None, passes: bool
) -> None:
    """AP is ``out`` beyond its limit of 0.5."""
    gate.end, gate.baseline = NUMBERS | {"AP": None if out is None else 0.5 - out}, NUMBERS | {"AP": 0.51}
    limits = ("--min-ap", "0.5") if kind == "least" else ("--baseline", "minio://m/old", "--max-drop", "1")
    assert gate.call(*limits) == (0 if passes else 1)
    suite = gate.suite()
    assert (suite.attrib["tests"], suite.attrib["failures"]) == ("1", "0" if passes else "1")
    mark = "✅" if passes else "❌"
    summary = gate.summary.read_text()
    assert summary.startswith(f"## {mark} kubeyolo gate") and f"` | {mark} | " in summary
    (case,) = suite.iter("testcase")
    assert f"{'✓' if passes else '✗'} {case.attrib['name']}: " in capsys.readouterr().out
    gate.call(*limits, "--json")
    assert f'"passed": {str(passes).lower()}' in capsys.readouterr().out


@pytest.mark.parametrize(("judge", "code"), [("point", 1), ("interval", 0), ("strict", 1)])
def test_the_gate_judges_by_the_rule_of_the_settings(
    gate: Gate, capsys: pytest.CaptureFixture[str], judge: str, code: int
) -> None:
    gate.baseline = NUMBERS | {"AP": 0.524}
    gate.resamples = {"evaluate": BOTH[0], "evaluate_baseline": resamples_of(0.524, 0.04)}
    limits = ("--baseline", "minio://m/old", "--max-drop", "1", "--set", f"evaluate.judge={judge}")
    assert gate.call(*limits) == code
    assert "it loses 1.20 points, the limit is 1; 95 % interval of the loss 0.06 to 2.34" in capsys.readouterr().out
    assert "the limit is inside, so 100 images with objects cannot tell" in gate.summary.read_text()
    assert gate.suite().attrib["failures"] == str(code)
    assert gate.call(*limits, "--json") == code
    assert json.loads(capsys.readouterr().out)["intervals"]["evaluate"]["AP"] == [0.454858, 0.569142]
    assert gate.call("--min", "APs=0.1", "--set", f"evaluate.judge={judge}") == (1 if judge == "point" else 2)


def test_a_file_that_cannot_be_written_is_known_before_anything_is_submitted(
    gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    gate.summary = gate.summary.parent / "absent" / "gate.md"
    assert gate.call("--min-ap", "0.5") == 2
    assert not gate.seen
    assert "absent/gate.md: cannot be written: No such file" in capsys.readouterr().err


def test_the_report_of_the_evaluation_is_fetched_from_the_store_with_the_checks(gate: Gate, tmp_path: Path) -> None:
    stored, file = tmp_path / "report.html", tmp_path / "gate.html"
    stored.write_text("<p>before</p><!-- checks -->none<!-- /checks --><p>after</p>")
    gate.page = stored.as_uri()
    assert gate.call("--min-ap", "0.6", "--report", str(file)) == 1
    page = file.read_text()
    assert page.startswith("<p>before</p>") and page.endswith("<p>after</p>")
    assert "AP is 0.5120, at least 0.6 is required" in page
    stored.unlink()
    assert gate.call("--min-ap", "0.5", "--report", str(file)) == 2
    assert not file.exists() and gate.suite().attrib["errors"] == "1"
