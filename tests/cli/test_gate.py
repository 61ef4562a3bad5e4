"""``kubeyolo gate``: real evaluations of networks whose AP is known, and what a CI reads of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kubeyolo.catalogue import MODEL_EVALUATION
from kubeyolo.cli.app import main
from kubeyolo.evaluation.results import COCO_KEYS
from kubeyolo.pointers import ModelPointer, write_model_pointer
from kubeyolo.steps import facade
from kubeyolo.steps.call import StepCall
from kubeyolo.steps.configure import configure
from kubeyolo.storage.place import Place
from tests.steps.called import validate_dataset
from tests.steps.fixed_detector import AP_OF_SHIFT, fixed_bundle, write_data


@dataclass(frozen=True)
class Shop:
    """A plain data set, a stored data set, and bundles whose networks are 0, 4 or 6 pixels off."""

    data: Path
    stored: str
    store: str
    exact: str
    worse: str


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    data, store = write_data(folder / "cells"), str(folder / "store")
    return Shop(
        data=data,
        stored=validate_dataset(str(data), store).dataset,
        store=store,
        exact=fixed_bundle(folder / "exact", {"onnx": 0, "int8": 4}),
        worse=fixed_bundle(folder / "worse", {"onnx": 6}),
    )


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, object]:
        return dict(json.loads(self.out))


Run = Callable[..., Ended]


@pytest.fixture
def run(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Call the command in an empty folder."""
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "ci").mkdir()
    monkeypatch.chdir(tmp_path / "ci")

    def call(*arguments: str, bundle: str = shop.exact, data: str = str(shop.data), store: str = shop.store) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main(["gate", "--bundle", bundle, "--data", data, "--store", store, *arguments])
        said = capfd.readouterr()
        return Ended(int(ended.value.code or 0), said.out, said.err)

    return call


FILES = ("--junit", "gate.xml", "--summary", "gate.md", "--report", "gate.html")


def suite() -> ElementTree.Element:
    (found,) = ElementTree.fromstring(Path("gate.xml").read_text())
    return found


def test_a_plain_folder_is_validated_and_the_model_passes(run: Run, shop: Shop, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    ended = run(
        *FILES, "--min-ap", "1", "--min", "AR100=0.9", "--max-drop", "0", "--baseline", shop.exact, store=str(fresh)
    )
    assert ended.code == 0, ended.err
    assert "✓ AP >= 1: AP is 1.0000, at least 1 is required" in ended.out
    assert "report gate.html" in ended.out
    assert f"{shop.data.as_uri()} is stored as {fresh.as_uri()}/datasets/cells-" in ended.out
    assert len(list((fresh / "datasets").iterdir())) == 1
    assert [case.get("name") for case in suite().iter("testcase")] == [
        "AP >= 1",
        "AR100 >= 0.9",
        "drop of AP <= 0 points",
    ]
    assert [suite().get(name) for name in ("tests", "failures", "errors")] == ["3", "0", "0"]
    summary = Path("gate.md").read_text()
    assert summary.startswith("## ✅ kubeyolo gate\n")
    assert "| AP | 1.0000 | 1.0000 | +0.00 |" in summary
    assert sum(line.startswith(tuple(f"| {key} |" for key in COCO_KEYS)) for line in summary.splitlines()) == 12
    assert f"- bundle: `{shop.exact}`" in summary and re.search(r"- dataset: `file://\S+@sha256:[0-9a-f]{64}`", summary)
    page = Path("gate.html").read_text()
    assert "AP is 1.0000, at least 1 is required" in page and page.rstrip().endswith("</html>")


def test_a_model_below_a_limit_fails(run: Run, shop: Shop) -> None:
    ended = run(*FILES, "--min-ap", "0.41", bundle=shop.worse, data=shop.stored)
    assert ended.code == 1
    assert f"✗ AP >= 0.41: AP is {AP_OF_SHIFT[6]:.4f}, at least 0.41 is required" in ended.out
    (case,) = suite().iter("testcase")
    failure = case.find("failure")
    assert failure is not None and "AP is 0.4000" in failure.attrib["message"]
    assert Path("gate.md").read_text().startswith("## ❌ kubeyolo gate\n")
    assert "at least 0.41 is required" in Path("gate.html").read_text()


def test_a_model_that_loses_against_the_baseline_fails(run: Run, shop: Shop, tmp_path: Path) -> None:
    latest = tmp_path / "latest.json"
    write_model_pointer(Place.of(str(latest)), ModelPointer(bundle=shop.exact))
    ended = run("--baseline", str(latest), bundle=shop.worse)
    assert ended.code == 1
    assert "✗ drop of AP <= 1 points: AP is 0.4000, AP of the baseline is 1.0000: it loses 60.00 points" in ended.out
    assert run("--baseline", str(latest), "--max-drop", "60", bundle=shop.worse).code == 0


def test_limits_of_the_evaluation_come_from_a_file_and_from_pairs(run: Run, shop: Shop) -> None:
    Path("my.yaml").write_text("evaluate: {max_det: 7, min_ap: 0.99}\n")
    options = ("--config", "my.yaml", "--min-ap", "0.3", "--json")
    # The gate of the configuration is that of the step; the command has its own.
    ended = run(*options, "--set", "evaluate.conf_threshold=0.999", bundle=shop.worse)
    # No detection is as certain as that.
    assert (ended.code, ended.result["evaluate"]["AP"]) == (1, 0.0)  # type: ignore[index]
    ended = run(*options, bundle=shop.worse)
    assert (ended.code, ended.result["passed"], ended.result["evaluate"]["AP"]) == (0, True, 0.4)  # type: ignore[index]


def test_the_result_as_json_has_the_form_of_the_gate_on_kubeflow(run: Run, shop: Shop) -> None:
    ended = run("--runtime", "int8", "--min-ap", "0.6", "--baseline", shop.exact, "--json")
    assert ended.code == 0
    assert list(ended.result) == ["passed", "checks", "dataset", "evaluate", "evaluate_baseline", "intervals"]
    assert ended.result["dataset"] == shop.stored
    checks = ended.result["checks"]
    assert [set(check) for check in checks] == [{"check", "passed", "message"}] * 2  # type: ignore[attr-defined]
    assert tuple(ended.result["evaluate"]) == COCO_KEYS  # type: ignore[arg-type]
    assert ended.result["evaluate"]["AP"] == pytest.approx(AP_OF_SHIFT[4])  # type: ignore[index]


def test_results_in_the_store_are_not_computed_again(
    run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As after an interruption between the evaluation of the bundle and that of the baseline."""
    fresh, real = str(tmp_path / "fresh"), facade.evaluate_step.evaluate
    seen: list[str] = []

    def interrupted(bundle, *arguments):  # type: ignore[no-untyped-def]
        seen.append(bundle.uri)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(bundle, *arguments)

    monkeypatch.setattr(facade.evaluate_step, "evaluate", interrupted)
    options = (*FILES, "--baseline", shop.worse, "--max-drop", "0")
    assert run(*options, store=fresh).code == 130
    error = suite().find("testcase/error")
    assert error is not None and error.attrib["message"] == "interrupted"
    assert not Path("gate.html").exists()
    assert run(*options, store=fresh).code == 0
    assert run(*options, store=fresh).code == 0
    assert seen == [shop.exact, shop.worse, shop.worse]
    assert suite().attrib["errors"] == "0"


def test_the_step_and_the_pipeline_find_the_evaluation_of_the_gate(
    run: Run, shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("--set", "evaluate.max_det=9", "--min-ap", "1").code == 0
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", shop.exact, shop.stored, "--runtime", "onnx", "--store", shop.store, "--max-det", "9"])
    assert not ended.value.code and "evaluate: the result of the same work is at" in capfd.readouterr().out
    form = {"bundle": shop.exact, "data": str(shop.data), "store": shop.store, "runtime": "onnx"}
    settings = configure(MODEL_EVALUATION, form | {"settings": "{evaluate: {max_det: 9}}"}).settings
    for step in ("validate_dataset", "evaluate"):
        call = StepCall(store=Place.of(shop.store), config=settings[step].configuration(), code=settings[step].code)
        if step == "evaluate":
            facade.evaluate(call, call.bundle(shop.exact), call.dataset(shop.stored), "onnx")
        else:
            facade.validate_dataset(call, settings[step].data, settings[step].fingerprint)
        assert f"{step}: the result of the same work is at" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--runtime", "mindspore"), "--runtime mindspore needs MindSpore: use 'kubeyolo pipeline gate'"),
        (("--runtime", "onx"), "unknown runtime 'onx'"),
        (("--runtime", "int8", "--baseline", "WORSE"), "runtime = int8 needs the file"),
        (("--split", "vla"), "has no split 'vla'"),
        (("--data", "STORED", "--split", "vla"), "has no split 'vla'; did you mean 'val'"),
        (("--data", "absent"), "absent"),
        (("--data", "DATA/annotations/val.json"), "give the folder of the data set, "),
        (("--bundle", "absent"), "absent"),
        (("--baseline", "absent/latest.json"), "there is no such pointer to a model"),
        (("--min", "AP5=0.3"), "did you mean 'AP50'"),
        (("--max-drop", "nan"), "largest drop nan: expected a number of points"),
        (("--set", "evaluate.max_dt=3"), "max_dt"),
        (("--store", "DATA/train/store"), "is in the folder of the images"),
    ],
)
def test_bad_input_is_refused_in_a_line_and_in_the_files(
    run: Run, shop: Shop, arguments: tuple[str, ...], said: str
) -> None:
    names = {"WORSE": shop.worse, "STORED": shop.stored}
    given = [names.get(each, each.replace("DATA", str(shop.data))) for each in arguments]
    ended = run(*FILES, "--min-ap", "0.5", *given)
    assert ended.code == 2
    line = ended.err.splitlines()[-1]
    assert line.startswith("error: ") and said in line, ended.err
    assert [suite().get(name) for name in ("tests", "failures", "errors")] == ["1", "0", "1"]
    assert said in Path("gate.md").read_text()
    assert not Path("gate.html").exists()


def test_without_a_limit_nothing_is_evaluated(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubeyolo.steps.model_evaluation.evaluate_models", None)
    ended = run()
    assert ended.code == 2 and "no limit is given: give --min-ap" in ended.err


def test_annotations_named_as_a_manifest_are_no_stored_data_set(run: Run, tmp_path: Path) -> None:
    folder = write_data(tmp_path / "cells")
    (folder / "dataset.json").write_text('{"images": []}')
    assert run("--min-ap", "1", data=str(folder)).code == 0


def test_the_report_of_an_earlier_gate_does_not_stay(run: Run) -> None:
    Path("gate.html").write_text("of yesterday")
    assert run(*FILES, "--min-ap", "0.5", "--bundle", "absent").code == 2
    assert not Path("gate.html").exists()
    assert run("--report", "no/gate.html", "--min-ap", "0.5").code == 2


def test_two_results_in_one_file_are_refused_and_devices_are_not(run: Run) -> None:
    ended = run("--min-ap", "0.5", "--junit", "gate", "--report", "./gate")
    assert ended.code == 2 and "--junit and --report name the same file, gate; give each a file" in ended.err
    assert run("--min-ap", "0.5", "--junit", "/dev/null", "--report", "/dev/null").code == 0


def test_a_file_of_an_input_is_not_replaced(run: Run, shop: Shop, tmp_path: Path) -> None:
    manifest = Path(shop.exact.removeprefix("file://")) / "bundle.json"
    before = manifest.read_bytes()
    ended = run("--min-ap", "0.5", "--junit", str(manifest))
    assert ended.code == 2 and f"--junit {manifest} is a file of the input bundle; choose another file" in ended.err
    assert manifest.read_bytes() == before
    settings = tmp_path / "my.yaml"
    settings.write_text("evaluate: {conf_threshold: 0.01}\n")
    ended = run("--min-ap", "0.5", "--config", str(settings), "--summary", str(settings))
    assert ended.code == 2 and "is a file of the input --config" in ended.err
    assert settings.read_text() == "evaluate: {conf_threshold: 0.01}\n"


def test_names_that_are_not_text_reach_the_files(run: Run) -> None:
    ended = run(*FILES, "--min-ap", "0.5", data="absent\udcff")
    assert ended.code == 2 and "absent?" in Path("gate.md").read_text()
    assert suite().get("errors") == "1"
