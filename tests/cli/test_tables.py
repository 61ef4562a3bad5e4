"""How results are printed."""

from __future__ import annotations

import pytest

from kubeyolo.cli import tables
from kubeyolo.data.findings import Findings
from kubeyolo.events import StepRecord


@pytest.fixture
def findings():
    """Return the facts of a finding that is mended and of one that is a warning."""
    collected = Findings()
    collected.add("box_outside", f"/data/{'deep/' * 30}train.json: annotation 1 has the bbox [1, 2, 300, 4]", 1234)
    collected.add("leak", "val: 'a.jpg' is the same as train: 'b.jpg'")
    return [finding.facts() for finding in collected.all()]


def test_findings_fit_a_terminal_and_paths_stay_whole(findings, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    tables.print_findings(findings)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "findings: 2"
    assert lines[1:4] == [
        "  mend   boxes that reach beyond their image: 1,234",
        "         [box_outside]",
        "         clipped to the image",
    ]
    assert f"         /data/{'deep/' * 30}train.json:" in lines
    assert all(len(line) <= 60 for line in lines if "deep" not in line)
    assert "         optional: clip them in the annotation tool" in lines


def test_findings_in_a_pipe_are_a_line_for_each_text(findings, capsys):
    tables.print_findings(findings)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 * 4
    assert lines[8] == "         to do: remove the images from train, or from the other split"


def test_a_data_set_without_findings_says_so(capsys):
    tables.print_findings([])
    assert capsys.readouterr().out == "findings: none\n"


def test_an_empty_metric_has_no_row(capsys):
    metrics = {"choice": {"weights": "best", "last": ""}}
    tables.print_record(StepRecord(step="train", seconds=1.0, metrics=metrics))
    printed = capsys.readouterr().out
    assert "choice.weights" in printed and "choice.last" not in printed


def test_the_thresholds_of_single_classes_have_no_rows(capsys):
    metrics = {"AP": 0.5, "best_thresholds": {"overall": 0.25, "classes": {"cat": 0.3, "v. small dog": 0.4}}}
    tables.print_record(StepRecord(step="evaluate", seconds=1.0, metrics=metrics))
    printed = capsys.readouterr().out
    assert "best_thresholds.overall" in printed and "0.25" in printed and "cat" not in printed and "dog" not in printed
