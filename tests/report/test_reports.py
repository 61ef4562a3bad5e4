"""The words of reports with missing, odd or large content."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kubeyolo.config.schema import ExportConfig
from kubeyolo.data.annotations import Sources, check_annotations
from kubeyolo.data.file_names import FileNames
from kubeyolo.data.findings import Finding, Findings
from kubeyolo.data.layouts.tree import list_files
from kubeyolo.data.manifest import DatasetManifest
from kubeyolo.data.readers.coco_json import read_coco_json
from kubeyolo.errors import InputError
from kubeyolo.evaluation.coco_eval import Detection
from kubeyolo.evaluation.error_analysis import analyse_errors
from kubeyolo.evaluation.limits import Verdict
from kubeyolo.evaluation.matching import match_detections
from kubeyolo.evaluation.operating_points import operating_points
from kubeyolo.evaluation.results import ClassResult, EvaluationResult
from kubeyolo.report.configuration import PlanView, configuration_report, plan_text
from kubeyolo.report.dataset import dataset_report
from kubeyolo.report.evaluation import evaluation_report
from kubeyolo.report.export import export_report
from kubeyolo.report.formats import compact, integer, number3, setting, signed_points
from kubeyolo.report.index import StepCard, index_page
from kubeyolo.report.model_card import escape, markdown_table, model_card
from kubeyolo.report.samples import Box, SampleImage
from kubeyolo.report.training import pretraining_report, training_report
from kubeyolo.report.validations import class_rows, validation_charts
from kubeyolo.steps.export import Parity, judge
from kubeyolo.training.history import HistoryRow, TrainingHistory
from tests.evaluation.known_boxes import random_set
from tests.report.conftest import plan_view, quantization_page, split_index

HOSTILE = "<script>alert(1)</script>"


def result(ap: float | None = 0.5, classes: int = 1) -> EvaluationResult:
    rows = [ClassResult(name=f"class {i}", AP=ap, AP50=ap, images=1, boxes=2) for i in range(classes)]
    curves = {row.name: [0.5] * 101 for row in rows} if ap is not None else {}
    return EvaluationResult(numbers={"AP": ap}, per_class=rows, curves=curves)


def text_of(html: str) -> str:
    """Return the visible words of a page, roughly."""
    body = re.sub(r"<(style|script|svg)\b.*?</\1>", " ", html, flags=re.S)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


@pytest.mark.parametrize(
    ("facts", "failed"),
    [
        ({}, "drop of AP &lt;= 1 points"),
        ({"ap": 0.49, "convs": 60, "quantized_convs": 50}, "convolutions in int8 &gt;= 95 %"),
        ({"ap": 0.49, "float_bytes": 100, "int8_bytes": 36}, "size, int8 to float &lt;= 0.35"),
    ],
)
def test_gate_fails_on_each_of_its_checks(facts: dict[str, Any], failed: str) -> None:
    ap = facts.pop("ap", 0.4899)
    text = text_of(quantization_page(result(0.5), result(ap), **facts))
    assert "fails the gate" in text and f"Failed: {failed}." in text
    assert f"{signed_points(ap - 0.5)} points" in text and text.count("failed") == 1


def test_quantization_lists_layers_by_cost_and_the_speed_on_this_machine() -> None:
    page = quantization_page(result(0.5), result(0.495), float_layers=("Conv_7",), quantized_convs=59)
    text = text_of(page)
    assert text.index("Conv_7") < text.index("stage.conv.weight") < text.index("Conv_1") < text.index("43.5")
    assert page.count("<td>float</td>") == 1 and page.count("<td>int8</td>") == 1
    assert "0.75" in text and "30.0 ms in float, 40.0 ms in int8" in text
    assert "int8 is not faster than float on this machine" in text


def test_gate_passes_at_its_bounds() -> None:
    facts = {"convs": 60, "quantized_convs": 57, "float_bytes": 100, "int8_bytes": 35}
    text = text_of(quantization_page(result(0.5), result(0.49), **facts))
    assert "passes the gate" in text and text.count("passed") == 3


def test_warnings_of_a_training_are_at_the_top_of_its_page_and_of_the_page_of_the_run() -> None:
    line = "12 of 20 (60.0 %) training images have no boxes."
    facts = {"seconds": 3.0, "warnings": (line,)}
    for html in (
        training_report(TrainingHistory(), {}, facts),
        pretraining_report([], facts),
        index_page("run", [], {"warnings": [f"train: {line}"]}),
    ):
        assert html.count(line) == 1 and re.search(rf'<p class="warning" role="note">(train: )?{re.escape(line)}', html)
    assert 'class="warning"' not in index_page("run", [], {"warnings": []})


def test_reports_of_nothing_are_pages() -> None:
    empty = result(None, 0)
    manifest = DatasetManifest(name="n", source="s", digest="d", classes=(), category_ids=(), splits={})
    for html in (
        evaluation_report(empty),
        quantization_page(empty, empty, convs=0, quantized_convs=0, float_bytes=1, int8_bytes=0),
        training_report(TrainingHistory(), {}, {}),
        pretraining_report([], {}),
        export_report({}, Verdict()),
        index_page("run", [], {}),
        dataset_report(manifest, {}),
        configuration_report(PlanView(name="run", lead="", facts={})),
    ):
        assert html.startswith("<!doctype html>") and html.rstrip().endswith("</html>")


def test_many_classes_get_a_spread_instead_of_bars() -> None:
    html = evaluation_report(result(0.5, 80))
    assert "Share of classes" in html and "mean of 80 classes" in html
    assert html.count("<tr>") >= 80 and len(html) < 400_000


def test_the_report_of_errors_stays_small_with_many_classes_and_folders() -> None:
    categories = tuple(range(1203))
    names = [f"class {number}" for number in categories]
    index, _, detections = random_set(0, 60, len(categories), 60)
    matches = match_detections(index, [3 * number + 2 for number in categories], detections)
    analysis = analyse_errors(matches, operating_points(matches, names), names)
    rows = [ClassResult(name=name, AP=0.5, AP50=0.5, images=1, boxes=2) for name in names]
    curves = {name: np.linspace(1, 0, 101).tolist() for name in names}
    many = EvaluationResult(numbers={"AP": 0.5}, per_class=rows, curves=curves)
    confusion = np.ones((len(categories) + 1,) * 2, np.int64)
    html = evaluation_report(many, analysis=analysis, confusion=confusion)
    text = text_of(html)
    assert "half of the classes are below" in text and "Confusion of classes" in text and "Annotations that" in text
    assert html.count("<tr") < len(categories) + 250 and len(html) < 1_200_000


def test_an_evaluation_without_boxes_or_detections_has_a_report_of_its_errors() -> None:
    for detected in ([], [Detection(image_id=1, category_id=1, bbox=[0.0, 0.0, 9.0, 9.0], score=0.9)]):
        index = split_index(0, 2).select(np.array([True, False]))
        object.__setattr__(index, "image_id", np.array([1]))
        matches = match_detections(index, (1,), detected)
        analysis = analyse_errors(matches, operating_points(matches, ["cat"]), ["cat"])
        nothing = EvaluationResult(
            numbers={"AP": None}, per_class=[ClassResult(name="cat", AP=None, AP50=None, images=0, boxes=0)]
        )
        html = evaluation_report(nothing, analysis=analysis, confusion=np.zeros((2, 2), np.int64))
        text = text_of(html)
        assert "No box was found" in text and "What the errors cost" in text
        assert ("Annotations that look wrong" in text) == bool(detected)


def test_export_says_when_an_output_differs() -> None:
    parity = {"onnx": {"stride 8": 1e-6, "stride 16": 2e-4}}
    facts = {"files": {"model.onnx": 7_000_000}, "rtol": 1e-4, "parity": parity}
    text = text_of(export_report(facts, judge(Parity(parity), ExportConfig())))
    assert text.count("passed") == 1 and text.count("failed") == 1
    assert (
        "An exported network differs from the trained network" in text
        and "2e-4; allowed 1e-4" in text
        and "7.00 MB" in text
    )


def test_export_names_the_files_that_were_not_measured() -> None:
    parity = {"onnx": {"stride 8": 1e-6}}
    facts = {"files": {"model.onnx": 7_000_000, "model.air": 8_000_000}, "rtol": 1e-4, "parity": parity}
    text = text_of(export_report({**facts, "not_measured": ["model.air"]}, judge(Parity(parity), ExportConfig())))
    assert "agree with the trained network; not measured: model.air" in text
    assert "model.onnx 7.00 MB compared" in text and "model.air 8.00 MB not measured" in text
    assert "not measured" not in text_of(export_report(facts, judge(Parity(parity), ExportConfig())))


def test_training_counts_epochs_from_one_and_names_its_best() -> None:
    rows = [HistoryRow(step=8, epoch=0, loss=3.0), HistoryRow(kind="val", step=8, epoch=0, ap=0.25)]
    rows += [HistoryRow(step=16, epoch=1, loss=2.0), HistoryRow(kind="val", step=16, epoch=1, ap=0.125)]
    text = text_of(training_report(TrainingHistory(rows), {"model": "m"}, {"resumed_at": [8]}))
    assert "Steps 16 2 epochs" in text and "Best AP 0.250 on validation, epoch 1" in text
    assert "resumed 1 time." in text


def test_training_lists_ap_of_classes_after_the_best_and_the_last_validation() -> None:
    rows = [
        HistoryRow(kind="val", step=8, epoch=0, ap=0.25, ap_by_class={"disc": 0.125, "ring": 0.375}),
        HistoryRow(kind="val", step=16, epoch=1, ap=0.125, ap_by_class={"disc": 0.25}),
    ]
    html = training_report(TrainingHistory(rows), {"model": "m"}, {"started from": "random weights"})
    assert "AP, best epoch AP, last ring 0.375 – disc 0.125 0.250" in text_of(html)
    assert "started from random weights" in text_of(html)
    assert html.count("best: epoch 1") >= 2  # In the description of the chart and at the line.


def test_of_many_classes_those_with_the_lowest_and_highest_ap_have_curves() -> None:
    rated = {f"class {number}": number / 100 for number in range(80)}
    charts = validation_charts([HistoryRow(kind="val", step=8, epoch=0, ap=0.5, ap_by_class=rated)])
    names = [name for name, _ in charts[1].legend]
    assert names == [f"class {number}" for number in (79, 78, 77, 76, 3, 2, 1, 0)]
    assert charts[1].note == "The 4 classes with the highest and the 4 with the lowest AP of 80."
    assert len(class_rows([HistoryRow(kind="val", step=8, epoch=0, ap=0.5, ap_by_class=rated)])) == 80


def test_anchors_are_in_the_card_and_those_of_a_training_in_its_report() -> None:
    config = {"train": {"lr": 0.01, "anchors": [[10.0, 13.5, 16.0, 30.0]]}}
    assert "Main settings lr 0.01 anchors 10, 13.5, 16, 30" in text_of(training_report(TrainingHistory(), config, {}))
    own = {"train": {"lr": 0.01, "anchors": []}}
    assert "Main settings lr 0.01 Configuration" in text_of(training_report(TrainingHistory(), own, {}))
    card = model_card({"model": "m", "strides": (8, 16), "anchors": (((10.0, 13.5),), ((16.0, 30.0),))}, {})
    assert "by stride: 8: 10 × 13.5; 16: 16 × 30." in card


@pytest.mark.parametrize("link", ["javascript:alert(1)", "https://example.org/x.html", "/etc/passwd"])
def test_index_links_only_to_relative_paths(link: str) -> None:
    with pytest.raises(InputError, match="not a relative link"):
        StepCard("train", "succeeded", 1.0, link)


def test_unknown_status_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'succeeded'"):
        StepCard("train", "suceeded")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (("succeeded", "cached", "skipped"), "succeeded"),
        (("succeeded", "running", "pending"), "running"),
        (("failed", "running"), "failed"),
        (("succeeded", "pending"), "pending"),
    ],
)
def test_status_of_a_run_is_its_most_urgent_one(statuses: tuple[str, ...], expected: str) -> None:
    cards = [StepCard(f"step {i}", status, 1.0) for i, status in enumerate(statuses)]  # type: ignore[arg-type]
    assert f'id="run-status">{expected}<' in index_page("run", cards, {})


def test_model_card_has_numbers_and_files_and_escapes_names() -> None:
    manifest = {
        "model": "yolov5n-r7",
        "classes": ["cat|dog", HOSTILE],
        "image_size": (320, 640),
        "strides": (8, 16, 32),
        "dataset": {"name": "pets", "digest": "cd" * 32, "uri": "file:///x"},
        "config": {"train": {"lr": 0.01, "optimizer": "sgd"}},
        "files": {"model.onnx": {"size": 7_220_000, "sha256": "ef" * 32}},
    }
    card = model_card(manifest, {"mindspore": {"AP": 0.51234, "APs": None}, "int8": {"AP": 0.5}})
    assert card.startswith("# yolov5n-r7\n")
    assert "| AP | 0.50:0.95, all, 100 | 0.512 | 0.500 |" in card
    assert "| model.onnx | 7.22 MB | " + "ef" * 32 in card
    assert "640 × 320 pixels" in card and "cd" * 32 in card and "| optimizer | sgd |" in card
    assert "<script>" not in card and "cat\\|dog" in card
    rows = [line for line in card.splitlines() if re.match(r"\| A[PR]", line)]
    assert len(rows) == 12 and all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)


def test_the_plan_as_markdown_has_tables_of_what_differs_and_of_every_setting() -> None:
    text = plan_text(plan_view())
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == [
        "# yolov5n-r7-shapes-0a1b2c",
        "## Estimate",
        "## Notes",
        "## What differs from the preset",
        "## The run",
        "## Every setting",
    ]
    changed, every = text.split("## What differs from the preset")[1].split("## Every setting")
    assert "| train.max\\_epoch | 10 | 300 | the field max\\_epoch |" in changed
    assert "train.lr" not in changed and "| train.lr | 0.01 | the preset yolov5n-r7 |" in every
    assert "| train images | 118 287 |" in changed and "version" not in changed
    assert len([line for line in every.splitlines() if line.startswith("| ")]) == 2 + 4
    assert "- about 3 h on 2 cores\n" in text


def test_the_plan_as_markdown_escapes_values() -> None:
    text = plan_text(plan_view())
    assert text.count("alert(1)") == 8
    # All special characters are escaped: a name cannot make HTML tags, links, headings or more cells.
    assert not re.search(r"(?<!\\)[<>]", text)
    assert "minio://a\\|b" in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 4, 5), line


def test_a_plan_in_which_nothing_differs_says_so() -> None:
    view = replace(plan_view(), settings=plan_view().settings[:1], estimate=(), notes=())
    text = plan_text(view)
    assert "## What differs from the preset\n\nNothing.\n" in text
    assert "## Estimate" not in text and "## Notes" not in text
    page = text_of(configuration_report(view))
    assert "What differs from the preset Nothing." in page and "Estimate" not in page


def test_texts_are_escaped_for_markdown_on_one_line() -> None:
    marks = "\\`*_[]<>|#~"
    assert escape(marks) == "".join(f"\\{mark}" for mark in marks)
    assert escape("one\n# two\t three ") == "one \\# two three"
    assert escape(0.5) == "0.5"


def test_tables_of_markdown_are_escaped_cell_by_cell() -> None:
    table = markdown_table(["name", "AP"], [["a|b\nc", "0.5"], ["**x**", "–"]], right=1)
    assert table.splitlines() == [
        "| name | AP |",
        "| --- | ---: |",
        "| a\\|b c | 0.5 |",
        "| \\*\\*x\\*\\* | – |",
    ]


def test_numbers_are_written_for_people() -> None:
    assert [compact(v) for v in (0, 0.02, 5, 1500, 12_000, 1.5e6, 2.5e-4)] == [
        "0",
        "0.02",
        "5",
        "1500",
        "12k",
        "1.5M",
        "2.5e-4",
    ]
    assert [signed_points(v) for v in (0.0042, -0.0042, 1e-6, None)] == ["+0.42", "−0.42", "±0.00", "–"]
    assert [number3(v) for v in (0.5, 1.0, -1.0, None)] == ["0.500", "1.000", "–", "–"]
    assert integer(1_234_567) == "1\u202f234\u202f567"
    assert [setting(v) for v in (True, None, (8, 16), {"a": 1.5}, 0.1 + 0.2)] == ["yes", "–", "8, 16", "a 1.5", "0.3"]


def test_report_of_real_coco_images_has_their_counts_and_stays_small(shared: Path) -> None:
    folder = shared / "data" / "coco_cc"
    files = FileNames(folder / "val", list_files(folder / "val"))
    raw = read_coco_json(folder / "annotations" / "val.json")
    annotations = check_annotations(Sources({"val": raw}, {"val": files}, required=("val",), with_boxes=()), Findings())
    index, classes, category_ids = annotations.splits["val"], annotations.classes, annotations.category_ids
    manifest = DatasetManifest(
        name="coco_cc", source="s", digest="d" * 64, classes=tuple(classes), category_ids=tuple(category_ids), splits={}
    )
    samples = []
    for i in range(12):
        rows = index.boxes_of(i)
        image = cv2.imread(str(folder / "val" / index.file_name[i]))[:, :, ::-1]
        boxes = [
            Box((x, y, x + w, y + h), classes[number], crowd=bool(crowd))
            for (x, y, w, h), number, crowd in zip(
                index.box_xywh[rows].tolist(), index.box_class[rows].tolist(), index.box_crowd[rows], strict=True
            )
        ]
        samples.append(SampleImage(np.ascontiguousarray(image), boxes, index.file_name[i]))
    html = dataset_report(manifest, {"val": index}, samples)
    assert 300_000 < len(html) < 3_000_000
    assert "val 57 517 7 2 9.1" in text_of(html)
    assert html.count('class="edge"') == sum(len(sample.boxes) for sample in samples)
    assert html.count("<img ") == 12


@pytest.mark.parametrize(("ap", "words"), [(0.0, "AP is 0"), (None, "AP is not defined"), (0.001, "")])
def test_report_and_card_warn_of_an_ap_of_zero(ap: float | None, words: str) -> None:
    text = text_of(evaluation_report(result(ap)))
    card = model_card({"model": "m", "classes": ["a"]}, {"onnx": {"AP": ap}})
    assert (words in text and words in card) if words else ("AP is" not in text and "AP is" not in card)


def test_the_model_card_lists_the_findings_of_the_data_set() -> None:
    dataset = {"name": "cells", "digest": "d", "findings": ["exact duplicates of boxes: 3; left out"]}
    card = model_card({"model": "m", "classes": ["a"], "dataset": dataset}, {})
    assert "Findings in cells:\n\n- exact duplicates of boxes: 3; left out" in card
    assert "Validation reported no findings in cells." in model_card({"dataset": {**dataset, "findings": []}}, {})


def test_the_data_report_shows_findings_as_text() -> None:
    finding = Finding(code="name_near", action="mend", count=1234, first=f"a.json: {HOSTILE}")
    manifest = DatasetManifest(
        name="n", source="s", digest="d", classes=("a",), category_ids=(1,), splits={}, findings=(finding,)
    )
    page = dataset_report(manifest, {})
    assert HOSTILE not in page
    assert "1 234 file names that differ from the file" in text_of(page)
    assert "all annotations and images are valid" in text_of(
        dataset_report(manifest.model_copy(update={"findings": ()}), {})
    )
