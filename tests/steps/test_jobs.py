"""Steps in jobs: what the step that launched a job makes of its result; here the job runs in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeyolo.bundle import ONNX, Bundle, open_bundle
from kubeyolo.catalogue import STEPS
from kubeyolo.config.load import load_config
from kubeyolo.data.dataset import Dataset
from kubeyolo.errors import InputError, WorkError
from kubeyolo.steps import facade
from kubeyolo.steps.call import StepCall
from kubeyolo.steps.job import StepSpec
from kubeyolo.storage.place import Place
from tests.steps.fixed_detector import fixed_bundle
from tests.steps.fixed_work import fix_work
from tests.steps.jobs import Jobs, opened, taken_files


@pytest.fixture
def found(tmp_path: Path) -> tuple[Bundle, Dataset]:
    """A detector with AP 0.6 in ONNX, and three images."""
    return open_bundle(Place.of(fixed_bundle(tmp_path / "made", {"onnx": 4}))), opened(tmp_path, ("disc", "ring"))


def gated(folder: Path, min_ap: float) -> StepCall:
    config = load_config(sets=[f"evaluate.min_ap={min_ap}", "evaluate.iou_threshold=0.5"])
    return StepCall(store=Place.of(folder / "store"), config=config, code="c")


def test_the_gate_is_judged_by_the_step_and_a_stored_result_starts_no_job(
    found: tuple[Bundle, Dataset], tmp_path: Path
) -> None:
    jobs = Jobs(3)
    with pytest.raises(WorkError, match=r"AP is 0\.6\d*, below the gate evaluate\.min_ap = 0\.9"):
        facade.evaluate(gated(tmp_path, 0.9), *found, "onnx", jobs)
    (work,) = jobs.works
    spec = StepSpec.model_validate_json(work.document)
    assert (work.step, work.processes, STEPS[work.step].is_alone, spec.runtime) == ("evaluate", 3, False, "onnx")
    assert (spec.config.evaluate.min_ap, spec.config.evaluate.iou_threshold) == (0, 0.5)
    assert work.reads == {"bundle": found[0].reference, "data set": found[1].reference}
    stored = facade.evaluate(gated(tmp_path, 0.5), *found, "onnx", jobs)
    assert stored.record.metrics["AP"] == pytest.approx(0.6, abs=0.01)
    # Nor does a step without jobs compute it again.
    assert facade.evaluate(gated(tmp_path, 0), *found, "onnx").reference == stored.reference
    assert len(jobs.works) == 1


def test_a_job_stores_what_the_step_itself_would_store(found: tuple[Bundle, Dataset], tmp_path: Path) -> None:
    by_job = facade.evaluate(gated(tmp_path, 0), *found, "onnx", Jobs())
    files = taken_files(Path(by_job.output.uri.removeprefix("file://")))
    here = facade.evaluate(gated(tmp_path, 0), *found, "onnx")
    assert taken_files(Path(here.output.uri.removeprefix("file://"))) == files


def test_a_job_that_stores_no_result_is_an_error(found: tuple[Bundle, Dataset], tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="the job of evaluate is complete, but its result is not"):
        facade.evaluate(gated(tmp_path, 0), *found, "onnx", Jobs(run=lambda work: None))


def test_two_evaluations_of_a_run_have_jobs_of_different_names(found: tuple[Bundle, Dataset], tmp_path: Path) -> None:
    jobs = Jobs()
    other = open_bundle(Place.of(fixed_bundle(tmp_path / "other", {"onnx": 6})))
    for bundle in (found[0], other):
        facade.evaluate(gated(tmp_path, 0), bundle, found[1], "onnx", jobs)
    names = {work.name for work in jobs.works}
    assert len(names) == 2 and all(name.startswith("evaluate-") for name in names)


def test_an_export_has_a_job_of_one_process(
    found: tuple[Bundle, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked = fix_work(monkeypatch, tmp_path, found[0].path(ONNX))
    jobs, call = Jobs(4), gated(tmp_path, 0)
    stored = facade.export_model(call, *found, jobs)
    (work,) = jobs.works
    assert (work.step, work.processes, STEPS[work.step].is_alone) == ("export_model", 1, True)
    assert worked.count("export") == 1
    assert facade.export_model(call, *found, jobs).reference == stored.reference and len(jobs.works) == 1


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("", "not JSON"),
        ("{}", "is not the document of a step: "),
        ('{"step": "train"}', "is not the document of a step: "),
    ],
)
def test_a_document_of_something_else_is_refused(tmp_path: Path, document: str, problem: str) -> None:
    path = tmp_path / "document.json"
    path.write_text(document)
    with pytest.raises(InputError, match=f"^{path}: {problem}"):
        StepSpec.read(path)
