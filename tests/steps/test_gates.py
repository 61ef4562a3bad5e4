"""Gates of the steps, and numbers that are measured once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kubeyolo.bundle import ONNX, Preprocessing, open_bundle
from kubeyolo.config.load import config_digest, load_config, ungated
from kubeyolo.config.schema import Config, QuantizeConfig
from kubeyolo.data.dataset import open_dataset
from kubeyolo.errors import InputError, WorkError
from kubeyolo.evaluation.intervals import Resamples
from kubeyolo.evaluation.limits import Verdict
from kubeyolo.evaluation.results import EvaluationResult
from kubeyolo.publishing import derive_bundle
from kubeyolo.quantization.int8 import QuantizationFacts
from kubeyolo.steps import evaluate, export, judged, promote, quantize
from kubeyolo.steps.conditions import conditions_of
from kubeyolo.steps.detection import at_exported_size, kept_result, recalled_result, settings_digest
from kubeyolo.steps.outcome import read_record
from kubeyolo.storage.place import Place
from tests.steps import called
from tests.steps.called import validate_dataset, write_record
from tests.steps.fixed_detector import MODEL, fixed_bundle, write_data
from tests.steps.fixed_work import checks_of, fix_work
from tests.steps.test_publish import make_bundle


def result(ap: float | None) -> EvaluationResult:
    return EvaluationResult(numbers={"AP": ap}, curves={"cat": [0.5] * 101}, images=3)


def test_the_gate_lets_good_networks_through() -> None:
    for ap, min_ap, limits in ((0.5, 0.5, 1), (0.0, 0.0, 0), (None, 0.0, 0)):
        verdict = evaluate.judge({"AP": ap}, min_ap)
        assert (verdict.passed, verdict.failures, len(verdict.checks)) == (True, "", limits)
        verdict.enforce("m")


@pytest.mark.parametrize(("ap", "words"), [(0.4321, "AP is 0.4321"), (None, "AP is not defined")])
def test_the_gate_names_both_numbers(ap: float | None, words: str) -> None:
    with pytest.raises(WorkError, match=rf"m: {words}.*evaluate\.min_ap = 0\.5"):
        evaluate.judge({"AP": ap}, 0.5).enforce("m")


def judge_int8(
    before: float | None = 0.5, after: float | None = 0.49, quantized: int = 57, int8_bytes: int = 350
) -> Verdict:
    facts = QuantizationFacts(60, quantized, 1000, int8_bytes, 8, "minmax")
    return quantize.judge(facts, {"AP": before}, {"AP": after}, QuantizeConfig())


def test_limits_of_int8_themselves_are_allowed() -> None:
    verdict = judge_int8()
    assert len(verdict.checks) == 3 and verdict.passed and verdict.failures == ""
    verdict.enforce("int8")


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (
            {"quantized": 56},
            "56 of 60 convolutions are quantized (93.3 %), at least 95 % are required (quantize.min_quantized_convs)",
        ),
        (
            {"int8_bytes": 351},
            "the file has 0.351 of the float file's size (351 of 1000 bytes), at most 0.35 is allowed "
            "(quantize.max_size_ratio)",
        ),
        (
            {"after": 0.488},
            "AP is 0.4880, AP of the float network is 0.5000: it loses 1.20 points, the limit is 1 "
            "(quantize.max_drop); use more calibration images or a different quantize.calibration",
        ),
        (
            {"before": None, "after": None},
            "AP is not defined (no ground truth), AP of the float network is not defined (no ground truth): "
            "there is nothing to compare; evaluate on a split with annotated objects",
        ),
    ],
)
def test_a_limit_of_int8_that_is_missed_is_the_message(figures: dict[str, Any], words: str) -> None:
    with pytest.raises(WorkError) as refused:
        judge_int8(**figures).enforce("int8")
    assert str(refused.value) == f"int8: {words}"


NOISE, BEYOND = 4e-7, 6e-7
BOUNDS = [(-0.01, True), (-BEYOND, True), (0.0, True), (NOISE, True), (BEYOND, False), (0.01, False)]
"""How far a limit is beyond AP, which is 0 where the limit is AP itself, and whether AP passes."""


@dataclass(frozen=True)
class Inputs:
    """Where steps with fixed networks work, and on what; AP of the networks is 0.6."""

    folder: Path
    dataset: str
    bundle: str

    def config(self, *sets: str) -> Config:
        return load_config(MODEL, sets=["evaluate.per_batch_size=1", *sets])


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inputs:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    dataset = validate_dataset(str(write_data(tmp_path / "data")), str(tmp_path / "store")).dataset
    bundle = open_bundle(Place.of(fixed_bundle(tmp_path / "exported", {"onnx": 4}, dataset))).reference
    fix_work(monkeypatch, tmp_path, open_bundle(Place.of(bundle)).path(ONNX))
    return Inputs(tmp_path, dataset, bundle)


def ends(work: Callable[[], object]) -> str:
    """Return the message with which work ends, empty when it succeeds."""
    try:
        work()
    except WorkError as error:
        return str(error)
    return ""


def test_the_page_of_evaluate_says_what_its_exit_code_says_at_each_bound(inputs: Inputs) -> None:
    output = (inputs.folder / "evaluated").as_uri()
    first = called.evaluate(inputs.bundle, inputs.dataset, output, inputs.config(), "onnx")
    ap = first.result.numbers["AP"]
    assert ap == pytest.approx(0.6) and checks_of(first.report) == []
    for place in (output, (inputs.folder / "anew").as_uri()):
        for out, passes in BOUNDS:
            config = inputs.config(f"evaluate.min_ap={ap + out}")
            message = ends(partial(called.evaluate, inputs.bundle, inputs.dataset, place, config, "onnx"))
            ((_, verdict, shown),) = checks_of((Place.of(place) / "report.html").uri)
            assert (message == "", verdict) == (passes, "passed" if passes else "failed"), out
            assert shown in (message.partition(": ")[2], shown if passes else ""), message
    # The record is that of the numbers, whatever the gate.
    assert "checks" not in read_record(Place.of(first.record)).metrics


@pytest.mark.parametrize(("judge", "passes"), [("point", True), ("interval", True), ("strict", False)])
def test_a_set_too_small_to_tell_says_so_and_fails_by_strict(inputs: Inputs, judge: str, passes: bool) -> None:
    output = (inputs.folder / "evaluated").as_uri()
    stored = called.evaluate(inputs.bundle, inputs.dataset, output, inputs.config(), "onnx")
    assert stored.metrics["intervals"] == {"AP": [0.6, 0.6], "AP50": [1.0, 1.0]}
    config = inputs.config("evaluate.min_ap=0.5", f"evaluate.judge={judge}")
    message = ends(partial(called.evaluate, inputs.bundle, inputs.dataset, output, config, "onnx"))
    ((_, verdict, shown),) = checks_of(stored.report)
    assert (message == "", verdict) == (passes, "passed" if passes else "failed")
    assert "95 % interval 0.6000 to 0.6000: 3 images with objects are too few to tell (30 are required)" in shown
    assert ("so evaluate.judge = strict fails" in message) == (not passes)
    page = (Place.of(output) / "report.html").read().decode()
    assert (
        "95 % interval, from 1\u202f000 resamples of the images: AP 0.600 to 0.600, AP50 1.000 to 1.000; 3 images"
        in page
    )


def resamples_of(ap: float, spread: float, shift: float = 0.0) -> Resamples:
    """Return resamples of 100 images whose AP spreads around a value in the same way for every model."""
    around = ap + shift + spread * np.linspace(-1, 1, 101)
    about = {"images": 100, "images_with_objects": 100, "drawn_from": "same"}
    return Resamples.of({"AP": np.concatenate([[ap], around])}, **about)


@pytest.mark.parametrize(
    ("ap", "passes"),
    [
        # The interval of the loss is 1.13 points wide on each side.
        (0.595, {"point": True, "interval": True, "strict": False}),
        (0.585, {"point": False, "interval": True, "strict": False}),
        (0.57, {"point": False, "interval": False, "strict": False}),
        (0.603, {"point": True, "interval": True, "strict": True}),
    ],
)
def test_promotion_judges_the_paired_interval_of_the_loss(tmp_path: Path, ap: float, passes: dict[str, bool]) -> None:
    current = {"onnx": {"AP": 0.6, "resamples": resamples_of(0.6, 0.02).model_dump()}}
    made = open_bundle(Place.of(make_bundle(tmp_path)))
    for judge, passed in passes.items():
        config = load_config(MODEL, sets=["retrain.max_regression=1", f"evaluate.judge={judge}"])
        new = result(ap).model_copy(update={"resamples": resamples_of(ap, 0.03)})
        bundle = derive_bundle(
            made, Place.of(tmp_path / judge), {}, metrics={"onnx": kept_result(new, "d" * 64, config)}
        )
        (check,) = promote.compare(bundle, current, "d" * 64, config).checks
        assert check.passed == passed, judge
        assert "95 % interval of the loss" in check.message
    # The current model was evaluated by a version without intervals.
    config = load_config(MODEL, sets=["retrain.max_regression=1", "evaluate.judge=strict"])
    (check,) = promote.compare(bundle, {"onnx": {"AP": 0.6}}, "d" * 64, config).checks
    assert not check.passed and "interval of the loss is not known" in check.message


def test_the_rule_of_the_gates_is_no_condition_of_a_result(inputs: Inputs) -> None:
    bundle, dataset = open_bundle(Place.of(inputs.bundle)), open_dataset(Place.of(inputs.dataset))
    plain, strict = inputs.config(), inputs.config("evaluate.judge=strict", "evaluate.min_ap=0.9")
    for step in ("evaluate", "export_model", "quantize"):
        conditions = conditions_of(step, bundle, dataset, strict)
        assert conditions == conditions_of(step, bundle, dataset, plain) and "evaluate.judge" not in conditions
    assert settings_digest("d", plain) == settings_digest("d", strict)
    assert ungated(strict) == plain


def test_numbers_in_a_store_that_is_only_read_are_judged(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = (inputs.folder / "evaluated").as_uri()
    called.evaluate(inputs.bundle, inputs.dataset, output, inputs.config(), "onnx")

    def refuse(*arguments: Any) -> str:
        raise InputError("the file system is read-only")

    monkeypatch.setattr(judged, "store_report", refuse)
    for min_ap, words in ((0.5, ""), (0.7, "below the gate evaluate.min_ap = 0.7")):
        config = inputs.config(f"evaluate.min_ap={min_ap}")
        message = ends(partial(called.evaluate, inputs.bundle, inputs.dataset, output, config, "onnx"))
        assert bool(message) == bool(words) and words in message
        assert "the report still shows the gate of an earlier evaluation: the file system" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("facts", "sets", "missed"),
    [
        ({}, ["min_quantized_convs=0.95", "max_size_ratio=0.25", "max_drop=0"], None),
        ({"quantized_convs": 19}, ["min_quantized_convs=0.95", "max_size_ratio=0.25", "max_drop=0"], None),
        ({"quantized_convs": 19}, ["min_quantized_convs=0.950001", "max_size_ratio=0.25"], "min_quantized_convs"),
        ({"quantized_convs": 18}, ["min_quantized_convs=0.95", "max_size_ratio=0.25"], "min_quantized_convs"),
        ({}, ["max_size_ratio=0.249999"], "max_size_ratio"),
        ({"int8_bytes": 101}, ["max_size_ratio=0.25"], "max_size_ratio"),
    ],
)
def test_the_page_of_quantize_says_what_its_exit_code_says(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch, facts: dict[str, int], sets: list[str], missed: str | None
) -> None:
    given = replace(QuantizationFacts(20, 20, 400, 100, 4, "minmax"), **facts)
    network = quantize._calibrated()

    class Calibrated:
        def write(self, *arguments: Any) -> QuantizationFacts:
            network.write(*arguments)
            return given

    monkeypatch.setattr(quantize, "_calibrated", lambda *arguments: Calibrated())
    config, output = inputs.config(*(f"quantize.{pair}" for pair in sets)), (inputs.folder / "int8").as_uri()
    message = ends(partial(called.quantize, inputs.bundle, inputs.dataset, output, config))
    checks = checks_of((Place.of(output) / "report.html").uri)
    failed = [shown for _, verdict, shown in checks if verdict == "failed"]
    assert len(checks) == 3 and (f"int8: {'; '.join(failed)}" if failed else "") == message
    assert (missed is None) == (message == "") and (missed or "") in message
    # Nothing is stored but the page when a limit is missed.
    stored = {item.key for item in Place.of(output).store.list()}
    assert ("metrics.json" in stored) == (missed is None) and (stored == {"report.html"}) == (missed is not None)
    if missed is None:
        rows = read_record(Place.of(output) / "metrics.json").metrics["checks"]
        assert [(row["name"], row["passed"], row["message"]) for row in rows] == [
            (name, verdict == "passed", shown) for name, verdict, shown in checks
        ]


@pytest.mark.parametrize(("difference", "passes"), [(1e-4, True), (1.0000004e-4, True), (1.000001e-4, False)])
def test_an_export_that_differs_stores_nothing_and_another_shows_its_parity(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch, difference: float, passes: bool
) -> None:
    parity = export.Parity({"onnx": {"stride 8": 0.0, "stride 16": difference}})
    monkeypatch.setattr(export, "_parity", lambda *arguments: parity)
    output = (inputs.folder / "onnx").as_uri()
    message = ends(partial(called.export_model, inputs.bundle, inputs.dataset, output, inputs.config()))
    assert (message == "") == passes and ("level of stride 16 differs" in message) == (not passes)
    assert bool(Place.of(output).store.list()) == passes
    if passes:
        checks = checks_of((Place.of(output) / "report.html").uri)
        assert [verdict for _, verdict, _ in checks] == ["passed"] * 3
        metrics = read_record(Place.of(output) / "metrics.json").metrics
        assert [row["passed"] for row in metrics["checks"]] == [True] * 3
        assert metrics["checks"][-1]["name"] == "onnx: difference of AP <= 0.001"
        assert metrics["trained_ap"] == metrics["onnx"]["AP"]


def test_promotion_says_what_its_exit_code_says_at_each_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    made = open_bundle(Place.of(make_bundle(tmp_path)))
    store = (tmp_path / "store").as_uri()
    for number, (out, passes) in enumerate(BOUNDS):
        # It loses 1 point at the limit.
        config = load_config(MODEL, sets=[f"retrain.max_regression={1.0 - out * 100}"])
        kept = {"onnx": kept_result(result(0.59), "d" * 64, config)}
        bundle = derive_bundle(made, Place.of((tmp_path / f"bundle {number}").as_uri()), {}, metrics=kept).uri
        verdict = promote.compare(open_bundle(Place.of(bundle)), {"onnx": {"AP": 0.6}}, "d" * 64, config)
        assert [check.passed for check in verdict.checks] == [passes], out
        record = write_record(str(tmp_path / f"{number}"), "evaluate_current", 1, {"bundle": ""}, {"onnx": {"AP": 0.6}})
        dataset = Place.of(tmp_path).pinned("d" * 64).reference
        output, latest = (tmp_path / f"out {number}").as_uri(), (tmp_path / f"latest {number}.json").as_uri()
        message = ends(partial(called.promote, bundle, "", record, latest, store, output, config, dataset))
        assert (message == "") == passes and verdict.failures in message
        if passes:
            assert read_record(Place.of(output) / "metrics.json").metrics["checks"] == verdict.rows


def test_all_limits_of_int8_that_are_missed_are_in_one_message() -> None:
    failures = judge_int8(after=0.4, quantized=1, int8_bytes=999).failures
    assert all(key in failures for key in ("max_drop", "min_quantized_convs", "max_size_ratio"))


def test_a_kept_result_is_recalled_for_the_same_settings_alone() -> None:
    config = load_config()
    metrics = {"onnx": kept_result(result(0.5), "digest", config)}
    assert "cat" not in metrics["onnx"]["curves"]
    recalled = recalled_result(metrics, "onnx", settings_digest("digest", config))
    assert recalled is not None and recalled.numbers == {"AP": 0.5}
    other = load_config(sets=["evaluate.iou_threshold=0.5"])
    assert recalled_result(metrics, "onnx", settings_digest("digest", other)) is None
    assert recalled_result(metrics, "onnx", settings_digest("other", config)) is None
    assert recalled_result({}, "onnx", "x") is None


def test_a_result_of_a_version_without_a_setting_is_recalled_for_the_default_alone() -> None:
    config = load_config()
    earlier = {"split", "image_size", "per_batch_size", "conf_threshold", "iou_threshold", "max_det", "multi_label"}
    before = config.evaluate.model_dump(mode="json", include=earlier)
    preprocessing = Preprocessing().model_dump(mode="json")
    digest = config_digest({"dataset": "digest", "evaluate": before, "preprocessing": preprocessing})
    assert settings_digest("digest", config) == digest
    for pair in ("evaluate.nms=diou", "evaluate.rect=true", "evaluate.tta=true"):
        changed = load_config(sets=[pair])
        assert settings_digest("digest", changed) != digest
        # Exported files take images of one size: they are evaluated without views and rectangles.
        assert (settings_digest("digest", at_exported_size(changed)) == digest) == (pair != "evaluate.nms=diou")


def test_a_gate_does_not_change_numbers() -> None:
    config, gated = load_config(), load_config(sets=["evaluate.min_ap=0.5"])
    metrics = {"onnx": kept_result(result(0.5), "digest", config)}
    assert recalled_result(metrics, "onnx", settings_digest("digest", gated)) is not None
    assert metrics["onnx"] == kept_result(result(0.5), "digest", gated)
