from __future__ import annotations

import json

import pytest

from kubeyolo.errors import InputError
from kubeyolo.evaluation.coco_eval import evaluate_detections
from kubeyolo.evaluation.results import COCO_NUMBERS

CASES = {
    "val2014_fakebbox100": (
        "cocoeval_ref/instances_val2014_100.json",
        "cocoeval_ref/instances_val2014_fakebbox100_results.json",
    ),
    "coco_cc": ("coco_cc/annotations", "cocoeval_ref/coco_cc_val_yolo-fastest-1.1-xl_dets.json"),
}


def case_files(shared, case):
    truth, detections = CASES[case]
    truth_file = shared / "data" / truth
    if truth_file.is_dir():
        truth_file = next(file for file in sorted(truth_file.glob("*.json")) if "val" in file.name)
    return json.loads(truth_file.read_text()), json.loads((shared / "data" / detections).read_text())


def expected_of(shared, case):
    expected = json.loads((shared / "data" / "cocoeval_ref" / "expected.json").read_text())
    return next(value for key, value in expected.items() if key.startswith(case))


@pytest.mark.parametrize("case", CASES)
def test_reference_numbers(shared, case, capsys):
    truth, detections = case_files(shared, case)
    expected = expected_of(shared, case)
    result = evaluate_detections(truth, detections)
    for key, value in expected["stats"].items():
        assert result.numbers[key] == pytest.approx(value, abs=1e-6), key
    for entry in result.per_class:
        reference = expected["per_class_AP_AP50"][entry.name]
        if reference is None:
            assert entry.AP is None and entry.AP50 is None and entry.boxes == 0 and entry.name not in result.curves
        else:
            assert pytest.approx(reference, abs=1e-6) == [entry.AP, entry.AP50], entry.name
            assert sum(result.curves[entry.name]) / 101 == pytest.approx(reference[1], abs=1e-6)
    assert len(result.per_class) == len(expected["per_class_AP_AP50"]) == 80
    assert result.images == len(truth["images"])
    assert sum(entry.boxes for entry in result.per_class) == result.boxes
    assert capsys.readouterr().out == ""


def ground_truth(boxes, images=1):
    return {
        "images": [
            {"id": 7 + number, "width": 100, "height": 100, "file_name": f"{number}.jpg"} for number in range(images)
        ],
        "categories": [{"id": 3, "name": "disc"}, {"id": 9, "name": "ring"}],
        "annotations": [
            {
                "id": number,
                "image_id": 7,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": crowd,
            }
            for number, (category, box, crowd) in enumerate(boxes, 1)
        ],
    }


def test_perfect_detections_have_ap_1_and_absent_kinds_are_none():
    truth = ground_truth([(3, [10, 10, 20, 20], 0), (3, [50, 50, 40, 40], 0)])
    detections = [
        {"image_id": 7, "category_id": 3, "bbox": box, "score": 0.9} for box in ([10, 10, 20, 20], [50, 50, 40, 40])
    ]
    result = evaluate_detections(truth, detections)
    assert list(result.numbers) == [number.key for number in COCO_NUMBERS]
    assert result.numbers["AP"] == pytest.approx(1)
    assert result.numbers["AR1"] == pytest.approx(0.5)
    assert result.numbers["APl"] is None
    disc, ring = result.per_class
    assert (disc.name, disc.images, disc.boxes) == ("disc", 1, 2)
    assert pytest.approx(1) == disc.AP
    assert ring.AP is None and ring.boxes == 0
    assert list(result.curves) == ["disc"] and len(result.curves["disc"]) == 101


def test_ids_of_annotations_may_be_zero():
    truth = ground_truth([(3, [10, 10, 20, 20], 0), (3, [50, 50, 40, 40], 0)])
    for annotation in truth["annotations"]:
        annotation["id"] -= 1
    detections = [
        {"image_id": 7, "category_id": 3, "bbox": box, "score": 0.9} for box in ([10, 10, 20, 20], [50, 50, 40, 40])
    ]
    assert evaluate_detections(truth, detections).numbers["AP"] == pytest.approx(1)
    assert [annotation["id"] for annotation in truth["annotations"]] == [0, 1]


def test_no_detections_give_zero():
    result = evaluate_detections(ground_truth([(3, [10, 10, 20, 20], 0)]), [])
    assert result.numbers["AP"] == 0 and result.numbers["AR100"] == 0
    assert result.per_class[0].AP == 0 and result.curves["disc"] == [0.0] * 101
    assert result.detections == 0


@pytest.mark.parametrize("images", [0, 2])
def test_no_ground_truth_gives_none(images):
    result = evaluate_detections(ground_truth([], images), [])
    assert set(result.numbers.values()) == {None}
    assert [entry.AP for entry in result.per_class] == [None, None]
    assert result.curves == {} and result.images == images


def test_crowds_are_neither_counted_nor_punished():
    truth = ground_truth([(3, [10, 10, 20, 20], 0), (3, [40, 40, 50, 50], 1)])
    detections = [
        {"image_id": 7, "category_id": 3, "bbox": [45, 45, 20, 20], "score": 0.95},
        {"image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 20], "score": 0.9},
    ]
    result = evaluate_detections(truth, detections)
    assert result.numbers["AP"] == pytest.approx(1)
    assert result.boxes == 1


def test_detections_of_unknown_images_or_categories_are_refused():
    truth = ground_truth([(3, [10, 10, 20, 20], 0)])
    with pytest.raises(InputError, match="detection 0: image id 8 "):
        evaluate_detections(truth, [{"image_id": 8, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 0.5}])
    with pytest.raises(InputError, match="detection 0: category id 1 "):
        evaluate_detections(truth, [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}])
