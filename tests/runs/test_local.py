"""Runs of the compiled pipeline: what is run, what comes from the cache, what is left when a step fails."""

from __future__ import annotations

import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.catalogue import STEPS as CATALOGUE
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.errors import InputError, WorkError
from kubeyolo.runs.cache import forget_dangling

STEPS = CompiledPipeline.named().tasks
CACHED = sorted({*STEPS} - {"configure"})
"""The steps whose results may come from the cache."""

FIRST = ["validate_dataset", "pretrain_backbone", "train"]


def test_a_run_leaves_summary_reports_index_and_latest(first_run: Any, later_runs: Any) -> None:
    outcome, said = first_run.outcome, first_run.said
    folder = later_runs.runs / "fake-run"
    assert sorted(first_run.calls) == sorted(STEPS)
    assert json.loads((folder / "summary.json").read_text()) == outcome.summary
    assert list(outcome.summary) == [
        "model",
        "dataset",
        "warnings",
        "evaluate",
        "export",
        "quantize",
        "bundle",
        "seconds",
    ]
    assert outcome.summary["dataset"] == {"digest": "d" * 64, "findings": None}
    assert outcome.summary["warnings"] == []
    assert len(outcome.summary["evaluate"]) == 12
    assert outcome.summary["export"] == {"onnx": {"AP": 0.5}}
    assert outcome.summary["quantize"] == {"int8": {"AP": 0.49}}
    # Where it lies, without the digest of its content.
    assert re.fullmatch(rf"{later_runs.store.as_uri()}/fake/publish-[0-9a-f]{{8}}/bundle", outcome.summary["bundle"])
    assert outcome.summary["seconds"] == {**dict.fromkeys(STEPS, 1.5), "configure": 0.5}
    assert list(outcome.summary["seconds"]) == [step for step in CATALOGUE if step in STEPS]
    assert (folder / "reports" / "train.html").read_text() == "<h1>train</h1>"
    index = (folder / "index.html").read_text()
    assert all(f"reports/{step}.html" in index for step in STEPS)
    assert (later_runs.runs / "latest").resolve() == folder
    assert said[:6] == [
        "started configure",
        "line configure: configure says hello",
        "finished configure",
        "started validate_dataset",
        "line validate_dataset: validate_dataset says hello",
        "finished validate_dataset",
    ]
    assert not [line for line in said if "KFP" in line or "executor_input" in line]


def test_the_same_run_again_configures_and_takes_all_else_from_the_cache(first_run: Any, later_runs: Any) -> None:
    again, watched = later_runs.run()
    assert later_runs.calls() == ["configure"]
    assert sorted(line for line in watched.said if line.startswith("cached")) == [f"cached {step}" for step in CACHED]
    assert again.summary == first_run.outcome.summary
    assert again.state.steps["train"].status == "cached"
    assert again.state.steps["configure"].status == "succeeded"


def test_a_run_of_another_name_takes_what_an_equal_one_has_made(first_run: Any, later_runs: Any) -> None:
    other, _ = later_runs.run(later_runs.described(name="other-run"))
    assert later_runs.calls() == ["configure"]
    assert other.summary == first_run.outcome.summary


def test_results_of_other_packages_are_not_taken(later_runs: Any) -> None:
    later_runs.run(replace(later_runs.described(), environment="other packages"))
    assert sorted(later_runs.calls()) == sorted(STEPS)


def test_changed_data_is_validated_again(later_runs: Any) -> None:
    _, watched = later_runs.run(later_runs.described(data="/other"))
    # The stored data set has the same content here, so that all that was made from it is known.
    assert later_runs.calls() == ["configure", "validate_dataset"]
    assert "cached train" in watched.said


def test_a_setting_runs_again_what_reads_it_and_what_follows(later_runs: Any) -> None:
    later_runs.run(later_runs.described(max_drop="2.0"))
    assert later_runs.calls() == ["configure", "quantize", "publish"]
    later_runs.run(later_runs.described(settings="{quantize: {max_drop: 2.0}}"))
    assert later_runs.calls() == ["configure"]  # the same setting, given in another way
    later_runs.run(later_runs.described(max_epoch="3"))
    assert later_runs.calls()[1] == "train"


def test_results_that_are_gone_from_the_store_are_made_again(later_runs: Any) -> None:
    (trained,) = (later_runs.store / "fake").glob("train-*")
    shutil.rmtree(trained)
    later_runs.run()
    assert later_runs.calls() == ["configure", "train"]


@pytest.mark.parametrize("place", ["train-*/bundle/bundle.json", "train-*/metrics.json", "dataset/dataset.json"])
def test_results_that_were_changed_in_the_store_are_made_again(later_runs: Any, place: str) -> None:
    (path,) = (later_runs.store / "fake").glob(place)
    before = path.read_bytes()
    path.write_bytes(b'{"another": "content"}')
    later_runs.run()
    assert later_runs.calls() == ["configure", "validate_dataset" if place.startswith("dataset") else "train"]
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("end", "kind", "message"),
    [
        ("input", InputError, "train: the input is bad"),
        ("work", WorkError, "train: the work failed"),
        ("bug", WorkError, "train: unexpected ZeroDivisionError: a bug"),
        ("kill", WorkError, "train: ended without a report"),
        ("exit", WorkError, r"exit code 3\); it printed last: caf\\xe9: the last words; see .*/run.log"),
    ],
)
def test_a_failed_step_ends_the_run_with_its_message_and_an_index(
    later_runs: Any, end: str, kind: type[Exception], message: str
) -> None:
    later_runs.let("train", end)
    with pytest.raises(kind, match=message) as raised:
        later_runs.run(later_runs.described(max_epoch="3"))
    assert "\n" not in str(raised.value) and ("SIGKILL" in str(raised.value)) == (end == "kill")
    folder = later_runs.runs / "fake-run"
    index = (folder / "index.html").read_text()
    assert "failed" in index
    assert html.escape(str(raised.value)) in index
    assert "reports/validate_dataset.html" in index
    assert not (folder / "summary.json").exists()
    assert "evaluate" not in later_runs.calls()


def test_the_same_command_continues_after_a_failure_and_appends_to_the_log(fake_runs: Any) -> None:
    fake_runs.let("evaluate", "work")
    with pytest.raises(WorkError, match="evaluate: the work failed"):
        fake_runs.run()
    fake_runs.calls()
    fake_runs.let("", "")
    outcome, _ = fake_runs.run()
    assert not set(FIRST) & set(fake_runs.calls())
    assert outcome.state.steps["train"].status == "cached"
    assert outcome.state.steps["evaluate"].status == "succeeded"
    log = (fake_runs.runs / "fake-run" / "run.log").read_text()
    assert len([line for line in log.splitlines() if line.startswith("=== 20")]) == 2
    assert log.index("train says hello") < log.index("evaluate: the work failed") < log.index("publish says hello")


def test_a_failed_step_writes_down_why(later_runs: Any) -> None:
    later_runs.let("train", "work")
    report = later_runs.runs / "fake-run" / "reports" / "train.html"
    report.unlink()
    with pytest.raises(WorkError, match="train: the work failed"):
        later_runs.run(later_runs.described(max_epoch="3"))
    (document,) = (later_runs.store / "fake").glob("train-*/failure.json")
    failure = json.loads(document.read_text())
    assert (failure["message"], failure["exit_code"]) == ("train: the work failed", 1)
    assert "WorkError" in failure["stack"]
    # Its report, which it wrote before it failed, is among those of the run.
    assert report.exists()


def test_a_store_that_cannot_be_used_is_refused_before_any_step(
    fake_runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"ENDPOINT": "127.0.0.1:9", "ACCESS_KEY": "a", "SECRET_KEY": "b", "SECURE": "0"}.items():
        monkeypatch.setenv(f"MINIO_{name}", value)
    fake_runs.store = "minio://bucket/prefix"
    with pytest.raises(InputError, match="127.0.0.1:9"):
        fake_runs.run()
    assert not (fake_runs.runs / "latest").exists()


def test_results_of_another_store_with_a_longer_name_are_left_alone(tmp_path: Path) -> None:
    entry = tmp_path / "cache" / "entry.json"
    entry.parent.mkdir()
    record = (tmp_path / "store2" / "metrics.json").as_uri()
    entry.write_text(json.dumps({"record": f"{record}@sha256:{'a' * 64}"}))
    assert forget_dangling(entry.parent, str(tmp_path / "store")) == []
    assert entry.exists()
    assert forget_dangling(entry.parent, str(tmp_path / "store2")) == [record]
    assert not entry.exists()


def test_entries_without_results_are_removed(tmp_path: Path) -> None:
    (tmp_path / "whole.json").write_text('{"record": "elsewhere"}')
    (tmp_path / "empty.json").write_text("{}")
    (tmp_path / "torn.json").write_text('{"rec')
    forget_dangling(tmp_path, str(tmp_path / "store"))
    assert [path.name for path in tmp_path.glob("*.json")] == ["whole.json"]


@pytest.mark.usefixtures("later_runs")
def test_the_page_of_a_run_draws_what_waits_for_what(first_run: Any) -> None:
    page = first_run.outcome.index.read_text()
    assert page.count('class="wire"') == 2 * len(CompiledPipeline.named().edges)
    assert [f'<li class="panel card" data-step="{step}">' in page for step in STEPS] == [True] * len(STEPS)
