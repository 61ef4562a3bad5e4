"""Matches of whole splits give the AP of pycocotools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubeyolo.evaluation import coco_matches
from kubeyolo.evaluation.bootstrap import ClassSamples, average_precision
from kubeyolo.evaluation.coco_eval import evaluate_detections
from kubeyolo.evaluation.coco_matches import SplitMatches, detected_boxes, match_boxes
from kubeyolo.evaluation.engines import Boxes
from kubeyolo.evaluation.results import EvaluationResult

REFERENCES = {
    "val2014": ("cocoeval_ref/instances_val2014_100.json", "cocoeval_ref/instances_val2014_fakebbox100_results.json"),
    "coco_cc": ("coco_cc/annotations", "cocoeval_ref/coco_cc_val_yolo-fastest-1.1-xl_dets.json"),
}


def matched(truth: dict[str, Any], detections: list[dict[str, Any]]) -> SplitMatches:
    """Return the matches of COCO documents."""
    image_id = np.array(sorted(image["id"] for image in truth["images"]), np.int64)
    category_id = np.array(sorted(category["id"] for category in truth["categories"]), np.int64)
    rows = truth["annotations"]
    boxes = Boxes.annotated(
        np.searchsorted(image_id, np.array([row["image_id"] for row in rows], np.int64)),
        np.searchsorted(category_id, np.array([row["category_id"] for row in rows], np.int64)),
        np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4),
        crowd=np.array([bool(row.get("iscrowd")) for row in rows], bool),
    )
    return match_boxes(boxes, detected_boxes(detections, image_id, category_id), image_id, len(category_id))


def assert_equal(found: ClassSamples, expected: EvaluationResult) -> None:
    """Compare AP and AP50 of a resample with pycocotools, for all classes together and for each."""
    for key, (value,) in found.means().items():
        reference = expected.numbers[key]
        assert np.isnan(value) if reference is None else value == pytest.approx(reference, abs=1e-9), key
    for row, ap, ap50 in zip(expected.per_class, found.ap[:, 0], found.ap50[:, 0], strict=True):
        for value, reference in ((ap, row.AP), (ap50, row.AP50)):
            assert np.isnan(value) if reference is None else value == pytest.approx(reference, abs=1e-9), row.name


def once(matches: SplitMatches) -> ClassSamples:
    return average_precision(matches, np.ones((len(matches.image_id), 1), np.int32))


@pytest.mark.parametrize("case", REFERENCES)
def test_ap_of_the_references_is_that_of_pycocotools(shared: Path, case: str) -> None:
    truth_file, detections_file = (shared / "data" / name for name in REFERENCES[case])
    if truth_file.is_dir():
        truth_file = next(file for file in sorted(truth_file.glob("*.json")) if "val" in file.name)
    truth, detections = json.loads(truth_file.read_text()), json.loads(detections_file.read_text())
    assert_equal(once(matched(truth, detections)), evaluate_detections(truth, detections))


def random_set(seed: int, classes: int, images: int, detections: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return COCO documents with crowds, empty images, equal scores, equal boxes and boxes on a coarse grid."""
    rng = np.random.default_rng(seed)

    def box() -> list[float]:
        return [float(value) for value in (*rng.integers(0, 4, 2) * 5, *rng.integers(2, 6, 2) * 4)]

    annotations = [
        {
            "id": number,
            "image_id": int(rng.integers(1, images + 1)) * 3,
            "category_id": int(rng.integers(1, classes + 1)) * 2,
            "bbox": (bbox := box()),
            "area": bbox[2] * bbox[3],
            "iscrowd": int(rng.random() < 0.2),
        }
        for number in range(1, int(rng.integers(0, 5 * images)) + 1)
    ]
    truth = {
        "images": [{"id": number * 3} for number in rng.permutation(np.arange(1, images + 1)).tolist()],
        "annotations": annotations,
        "categories": [{"id": number * 2, "name": f"class {number}"} for number in range(1, classes + 1)],
    }
    rows = [
        {
            "image_id": int(rng.integers(1, images + 1)) * 3,
            "category_id": int(rng.integers(1, classes + 1)) * 2,
            "bbox": box(),
            "score": round(float(rng.random()), 1),
        }
        for _ in range(detections)
    ]
    return truth, rows


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    classes=st.sampled_from([1, 3, 40]),
    images=st.integers(1, 6),
    detections=st.sampled_from([0, 20, 150]),
)
def test_ap_of_random_sets_is_that_of_pycocotools(seed: int, classes: int, images: int, detections: int) -> None:
    truth, rows = random_set(seed, classes, images, detections)
    assert_equal(once(matched(truth, rows)), evaluate_detections(truth, rows))


def test_pairs_are_compared_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, rows = random_set(5, 2, 6, 150)
    whole = matched(truth, rows)
    assert whole.classes[0].found.any() and whole.classes[0].ignored.any()
    for largest in (1, 7, 40):
        monkeypatch.setattr(coco_matches, "_PAIRS_AT_ONCE", largest)
        for one, other in zip(whole.classes, matched(truth, rows).classes, strict=True):
            assert np.array_equal(one.found, other.found) and np.array_equal(one.ignored, other.ignored)
            assert np.array_equal(one.row, other.row)


def test_only_the_100_best_detections_of_a_class_in_an_image_count() -> None:
    truth, _ = random_set(3, 1, 1, 0)
    wrong = [{"image_id": 3, "category_id": 2, "bbox": [90, 90, 5, 5], "score": 0.9} for _ in range(99)]
    right = [{"image_id": 3, "category_id": 2, "bbox": box["bbox"], "score": 0.5} for box in truth["annotations"]]
    assert len(right) > 1
    expected = evaluate_detections(truth, [*wrong, *right])
    assert expected.numbers["AP"] and expected.numbers["AR100"] and expected.numbers["AR100"] < 1
    assert_equal(once(matched(truth, [*wrong, *right])), expected)


@pytest.mark.parametrize("seed", range(5))
def test_a_resample_has_the_ap_of_a_set_with_as_many_copies_of_each_image(seed: int) -> None:
    truth, rows = random_set(seed, 3, 8, 120)
    # Copies of a detection have equal scores, but no two detections of an image: their order would not be defined.
    rows = [{**row, "score": round(row["score"] + number * 1e-4, 6)} for number, row in enumerate(rows)]
    image_id = sorted(image["id"] for image in truth["images"])
    drawn = np.random.default_rng(seed).multinomial(8, np.full(8, 1 / 8)).astype(np.int32)
    copies: dict[str, Any] = {**truth, "images": [], "annotations": []}
    copied_rows = []
    for image, count in zip(image_id, drawn.tolist(), strict=True):
        for copy in range(count):
            new = image * 100 + copy
            copies["images"].append({"id": new})
            boxes = [box for box in truth["annotations"] if box["image_id"] == image]
            copies["annotations"] += [{**box, "image_id": new} for box in boxes]
            copied_rows += [{**row, "image_id": new} for row in rows if row["image_id"] == image]
    found = average_precision(matched(truth, rows), drawn[:, None])
    assert_equal(found, evaluate_detections(copies, copied_rows))
