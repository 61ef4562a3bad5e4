"""A step whose result lies whole at its place returns it; when anything of it is missing, the step works again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.bundle import MANIFEST_NAME, MINDIR, ONNX, ONNX_INT8, WEIGHTS, open_bundle
from kubeyolo.config.load import load_config
from kubeyolo.data.dataset import open_dataset
from kubeyolo.errors import InputError, WorkError
from kubeyolo.publishing import derive_once
from kubeyolo.steps.outcome import finished, read_record
from kubeyolo.storage.integrity import sha256_bytes
from kubeyolo.storage.place import Place
from kubeyolo.whole import is_whole
from tests.steps.called import (
    evaluate,
    evaluate_current,
    export_model,
    pretrain_backbone,
    quantize,
    train,
    validate_dataset,
    write_record,
    write_report,
)
from tests.steps.fixed_detector import MODEL, fixed_bundle, write_data
from tests.steps.fixed_work import checks_of, file_of, fix_work, written

CONFIG = load_config(MODEL, sets=["quantize.max_drop=100"])


@dataclass
class Step:
    """A step with fixed inputs.

    Attributes:
        run: Runs it at an output.
        worked: Gets a name for each piece of work, rather than of a result that is returned.
        result: Name of the output that refers to what it has made.
        file: Name of a file of that.
    """

    run: Callable[[str], Any]
    worked: list[str]
    result: str
    file: str


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A data set as it comes in, as it is stored, and the references of a trained and of an exported bundle."""
    folder = tmp_path_factory.mktemp("inputs")
    dataset = validate_dataset(str(write_data(folder / "data")), str(folder / "store")).dataset
    trained = fixed_bundle(folder / "trained", {})
    exported = fixed_bundle(folder / "exported", {"onnx": 4}, dataset)
    bundles = {
        "trained": open_bundle(Place.of(trained)).reference,
        "exported": open_bundle(Place.of(exported)).reference,
    }
    return {"data": str(folder / "data"), "store": str(folder / "store"), "dataset": dataset, **bundles}


@pytest.fixture
def steps(inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Step]:
    """The steps by name."""
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    worked = fix_work(monkeypatch, tmp_path, open_bundle(Place.of(inputs["exported"])).path(ONNX))
    data, store, dataset = inputs["data"], str(tmp_path / "store"), inputs["dataset"]
    trained, exported = inputs["trained"], inputs["exported"]
    made = {
        "validate_dataset": (lambda output: validate_dataset(data, store, output), "dataset", "train-00000.tar"),
        "pretrain_backbone": (lambda output: pretrain_backbone(dataset, output, CONFIG), "backbone", WEIGHTS),
        "train": (lambda output: train(dataset, output, CONFIG), "bundle", WEIGHTS),
        "export_model": (lambda output: export_model(trained, dataset, output, CONFIG), "bundle", MINDIR),
        "quantize": (lambda output: quantize(exported, dataset, output, CONFIG), "bundle", ONNX_INT8),
        "evaluate": (lambda output: evaluate(exported, dataset, output, CONFIG, "onnx"), "detections", ""),
    }

    def step(name: str) -> Step:
        run, result, file = made[name]
        return Step(run, worked, result, file)

    return step


def documents(output: str) -> dict[str, bytes]:
    """Return the contents of the files of an output, by name."""
    store = Place.of(output).store
    return {stored.key: store.read_bytes(stored.key) for stored in store.list()}


NAMES = ("validate_dataset", "pretrain_backbone", "train", "evaluate", "export_model", "quantize")


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_result_is_returned_without_work(
    steps: Callable[[str], Step], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    step, output = steps(name), (tmp_path / "output").as_uri()
    first = step.run(output)
    assert len(step.worked) == 1
    before = documents(output)
    capsys.readouterr()
    assert step.run(output) == first
    assert len(step.worked) == 1 and documents(output) == before
    assert f"{name}: the result of the same work is at {output}, nothing to do" in capsys.readouterr().out
    record = read_record(Place.of(first.record))
    assert record.step == name and Place.of(first.record) == Place.of(f"{output}/metrics.json").pinned(
        record_digest(output)
    )
    assert is_whole(step.result, Place.of(record.outputs[step.result]))


def record_digest(output: str) -> str:
    known = finished(Place.of(output), read_record(Place.of(output) / "metrics.json").step)
    assert known is not None
    return Place.of(known.reference).digest


def remove_the_record(output: str, step: Step) -> None:
    file_of(f"{output}/metrics.json").unlink()


def break_the_record(output: str, step: Step) -> None:
    file_of(f"{output}/metrics.json").write_text("{")


def take_the_record_of_another_step(output: str, step: Step) -> None:
    path = file_of(f"{output}/metrics.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"step": "another"}))


def remove_the_report(output: str, step: Step) -> None:
    file_of(f"{output}/report.html").unlink()


def remove_a_file(output: str, step: Step) -> None:
    result_file(output, step).unlink()


def cut_a_file_off(output: str, step: Step) -> None:
    if step.file:
        path = result_file(output, step)
        path.write_bytes(path.read_bytes()[:-1])
    else:
        remove_a_file(output, step)


def change_a_byte(output: str, step: Step) -> None:
    path = result_file(output, step)
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def remove_the_manifest(output: str, step: Step) -> None:
    uri = result_uri(output, step)
    for name in (MANIFEST_NAME, "dataset.json", uri.rpartition("/")[2]):
        file_of(f"{uri}/{name}" if step.file else uri).unlink(missing_ok=True)


def result_uri(output: str, step: Step) -> str:
    return Place.of(read_record(Place.of(f"{output}/metrics.json")).outputs[step.result]).uri


def result_file(output: str, step: Step) -> Path:
    uri = result_uri(output, step)
    return next(file_of(uri).rglob(step.file)) if step.file else file_of(uri)


BREAKS = (
    remove_the_record,
    break_the_record,
    take_the_record_of_another_step,
    remove_the_report,
    remove_a_file,
    cut_a_file_off,
    change_a_byte,
    remove_the_manifest,
)


@pytest.mark.parametrize("damage", BREAKS, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_whole_is_made_again(
    steps: Callable[[str], Step], tmp_path: Path, name: str, damage: Callable[[str, Step], None]
) -> None:
    step, output = steps(name), (tmp_path / "output").as_uri()
    first = step.run(output)
    damage(output, step)
    again = step.run(output)
    assert len(step.worked) == 2
    # What is whole by then is not made a third time, and is the same unless the bytes of MINDIR had to be written anew.
    assert step.run(output) == again and len(step.worked) == 2
    record = read_record(Place.of(again.record))
    assert is_whole(step.result, Place.of(record.outputs[step.result]))
    is_written_anew = name == "export_model" and damage in (
        remove_a_file,
        cut_a_file_off,
        change_a_byte,
        remove_the_manifest,
    )
    before = getattr(first, "bundle", None), getattr(first, "backbone", None), getattr(first, "dataset", None)
    after = getattr(again, "bundle", None), getattr(again, "backbone", None), getattr(again, "dataset", None)
    assert (after == before) is not is_written_anew


@pytest.mark.parametrize("name", ["pretrain_backbone", "train", "export_model", "quantize"])
def test_another_bundle_at_the_place_is_not_the_result(steps: Callable[[str], Step], tmp_path: Path, name: str) -> None:
    step, output = steps(name), (tmp_path / "output").as_uri()
    step.run(output)
    path = file_of(f"{output}/bundle/{MANIFEST_NAME}")
    path.write_bytes(path.read_bytes() + b"\n")
    again = step.run(output)
    assert len(step.worked) == 2
    bundle = again.backbone if name == "pretrain_backbone" else again.bundle
    assert open_bundle(Place.of(bundle)).reference == bundle
    assert step.run(output) == again and len(step.worked) == 2


def test_a_changed_data_set_at_the_place_is_not_the_result(steps: Callable[[str], Step], tmp_path: Path) -> None:
    step, output = steps("validate_dataset"), (tmp_path / "output").as_uri()
    first = step.run(output)
    path = file_of(f"{Place.of(first.dataset).uri}/dataset.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"digest": "0" * 64}))
    assert not is_whole("dataset", Place.of(first.dataset))
    with pytest.raises(InputError, match=f"{Place.of(first.dataset).uri}: its content has changed: expected"):
        open_dataset(Place.of(first.dataset))


def test_no_backbone_is_a_result_too(inputs: dict[str, str], tmp_path: Path) -> None:
    config, output = load_config(MODEL, sets=["pretrain.enabled=false"]), (tmp_path / "output").as_uri()
    first = pretrain_backbone(inputs["dataset"], output, config)
    assert first.backbone == "" and read_record(Place.of(first.record)).metrics == {"enabled": False}
    assert pretrain_backbone(inputs["dataset"], output, config) == first


# Two at the same moment.


def test_two_exports_at_the_same_moment_return_the_same_bundle(
    steps: Callable[[str], Step], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kubeyolo.steps import export as export_step

    step, output, others = steps("export_model"), (tmp_path / "output").as_uri(), []
    export = export_step._export

    def export_while_another_one_does(*arguments: Any) -> dict[str, Path]:
        files = export(*arguments)
        monkeypatch.setattr("kubeyolo.steps.export._export", export)
        others.append(step.run(output))
        return files

    monkeypatch.setattr("kubeyolo.steps.export._export", export_while_another_one_does)
    slower = step.run(output)
    (faster,) = others
    # The files of MINDIR have other bytes; what refers to the first one stays true.
    assert len(step.worked) == 2
    assert slower == faster
    assert open_bundle(Place.of(faster.bundle)).path(MINDIR).read_bytes() == b"exported 002 times"
    assert read_record(Place.of(faster.record)).outputs["bundle"] == faster.bundle


def test_the_first_of_two_derived_bundles_stays_unless_it_is_damaged(inputs: dict[str, str], tmp_path: Path) -> None:
    bundle, place = open_bundle(Place.of(inputs["trained"])), (tmp_path / "bundle").as_uri()

    def derive(content: bytes) -> str:
        return derive_once(
            bundle, Place.of(place), {MINDIR: written(tmp_path / "file", content)}, metrics={"AP": 1}
        ).reference

    first = derive(b"one")
    assert derive(b"two") == derive(b"one") == first
    opened = open_bundle(Place.of(first))
    assert opened.path(MINDIR).read_bytes() == b"one" and opened.manifest.metrics == {"AP": 1}
    opened.path(MINDIR).unlink()
    second = derive(b"two")
    assert second != first and open_bundle(Place.of(second)).path(MINDIR).read_bytes() == b"two"


# Records.


METRICS = {"AP": 0.5, "onnx": {"AP": None, "AP50": 0.1 + 0.2}, "strides": (8, 16), "images_per_second": 30.0}


def test_of_two_equal_records_the_first_stays(tmp_path: Path) -> None:
    output, outputs = tmp_path.as_uri(), {"bundle": "minio://b/x"}
    first = write_record(output, "train", 60.0, outputs, METRICS, "<p>")
    # The other one has taken another time, on a faster machine.
    again = write_record(output, "train", 30.0, outputs, METRICS | {"images_per_second": 60.0}, "<p>")
    assert again == first and read_record(Place.of(first)).seconds == 60.0


@pytest.mark.parametrize("change", [{"metrics": METRICS | {"AP": 0.25}}, {"outputs": {"bundle": "minio://b/y"}}])
def test_a_record_of_other_numbers_or_outputs_takes_the_place(tmp_path: Path, change: dict[str, Any]) -> None:
    given: dict[str, Any] = {"outputs": {"bundle": "minio://b/x"}, "metrics": METRICS}
    first = write_record(tmp_path.as_uri(), "train", 60.0, **given)
    second = write_record(tmp_path.as_uri(), "train", 60.0, **given | change)
    assert Place.of(second).uri == Place.of(first).uri and second != first
    assert read_record(Place.of(second)).outputs == (given | change)["outputs"]
    with pytest.raises(
        InputError, match=r"metrics\.json: its content has changed: .*; run the step that wrote it again"
    ):
        read_record(Place.of(first))


def test_a_damaged_record_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("[]")
    record = write_record(tmp_path.as_uri(), "train", 1.0, {}, {"AP": 0.5})
    assert read_record(Place.of(record)).metrics == {"AP": 0.5}


def test_an_output_is_whole_when_all_of_it_is_there(inputs: dict[str, str], tmp_path: Path) -> None:
    report = write_report(tmp_path.as_uri(), "<p>")
    document = Place.of(report).pinned(sha256_bytes(b"<p>")).reference
    whole = {
        "dataset": inputs["dataset"],
        "bundle": inputs["trained"],
        "backbone": inputs["trained"],
        "report": document,
    }
    for name, there in (*whole.items(), ("bundle", tmp_path.as_uri())):
        assert is_whole(name, Place.of(there)), there
    for name, there in whole.items():
        assert not is_whole(name, Place.of(there).pinned("0" * 64)), there
    elsewhere = tmp_path.as_uri()
    for name in whole:
        assert not is_whole(name, Place.of(f"{elsewhere}/absent").pinned("0" * 64)), name
    Place.of(f"{elsewhere}/{MANIFEST_NAME}").write(b"{}")
    assert not is_whole("bundle", Place.of(elsewhere).pinned("0" * 64))


def test_a_result_that_was_copied_to_another_store_is_made_again_there(
    steps: Callable[[str], Step], tmp_path: Path
) -> None:
    """Its record refers to the store it comes from."""
    step, output = steps("quantize"), tmp_path / "results" / "quantize"
    step.run(output.as_uri())
    shutil.copytree(output, tmp_path / "copy")
    assert finished(Place.of(output), "quantize") is not None
    assert finished(Place.of((tmp_path / "copy").as_uri()), "quantize") is None


# Gates, which judge a result and do not change it.


TOO_FEW = "95 % interval 0.6000 to 0.6000: 3 images with objects are too few to tell (30 are required)"


def test_another_gate_judges_the_same_numbers(
    steps: Callable[[str], Step], inputs: dict[str, str], tmp_path: Path
) -> None:
    step, output = steps("evaluate"), (tmp_path / "output").as_uri()
    first = step.run(output)
    report = Place.of(first.report).read()

    def judged(min_ap: float) -> Any:
        config = CONFIG.model_copy(update={"evaluate": replace_min_ap(min_ap)})
        return evaluate(inputs["exported"], inputs["dataset"], output, config, "onnx")

    assert judged(0.5) == first
    assert checks_of(first.report) == [
        ("AP >= 0.5", "passed", f"AP is 0.6000, at least 0.5 is required (evaluate.min_ap); {TOO_FEW}")
    ]
    for _ in range(2):
        with pytest.raises(WorkError, match=rf"{MODEL} on data: AP is 0\.6000, below the gate evaluate\.min_ap = 0\.9"):
            judged(0.9)
        ((name, verdict, _),) = checks_of(first.report)
        assert (name, verdict) == ("AP >= 0.9", "failed")
    # Without a gate the page is what it was.
    assert judged(0.0) == first
    assert len(step.worked) == 1 and Place.of(first.report).read() == report
    # Where the first one fails, its numbers are there for the next one all the same.
    other = (tmp_path / "other").as_uri()
    config = CONFIG.model_copy(update={"evaluate": replace_min_ap(0.9)})
    with pytest.raises(WorkError, match="below the gate"):
        evaluate(inputs["exported"], inputs["dataset"], other, config, "onnx")
    assert len(step.worked) == 2
    assert [verdict for _, verdict, _ in checks_of((Place.of(other) / "report.html").uri)] == ["failed"]
    assert step.run(other).result == first.result and len(step.worked) == 2
    assert checks_of((Place.of(other) / "report.html").uri) == []


def replace_min_ap(min_ap: float) -> Any:
    return CONFIG.evaluate.model_copy(update={"min_ap": min_ap})


def test_the_current_model_is_evaluated_once_by_each_network(
    steps: Callable[[str], Step], inputs: dict[str, str], tmp_path: Path
) -> None:
    step, store = steps("evaluate"), str(tmp_path / "store")
    config = CONFIG.model_copy(update={"evaluate": replace_min_ap(0.9)})
    outcomes = [
        evaluate_current(inputs["exported"], inputs["dataset"], (tmp_path / f"{number}").as_uri(), config, store)
        for number in range(2)
    ]
    assert len(step.worked) == 1
    assert outcomes[0] == replace(outcomes[1], record=outcomes[0].record, report=outcomes[0].report)
    record = read_record(Place.of(outcomes[0].record))
    assert record.outputs == {"bundle": inputs["exported"]}
    assert record.metrics["onnx"]["AP"] == pytest.approx(0.6) and "int8" not in record.metrics
    none = evaluate_current("", inputs["dataset"], (tmp_path / "none").as_uri(), config, store)
    assert none.metrics == {} and read_record(Place.of(none.record)).outputs == {"bundle": ""}
