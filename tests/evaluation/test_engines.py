"""hotcoco and pycocotools give the same numbers, which pycocotools judges."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubeyolo.errors import InputError
from kubeyolo.evaluation.coco_eval import evaluate_detections
from kubeyolo.evaluation.engines import ENGINES, Boxes, accumulate
from kubeyolo.evaluation.results import COCO_KEYS


def random_set(rng, images, classes, boxes, found, grid):
    """Return ground truth with crowds and empty images, and detections near it, with ties of scores.

    Coordinates lie on a grid, so that many IoUs are exactly at a threshold.
    """
    image_ids = (rng.permutation(images * 3)[:images] * 2**40).tolist()
    category_ids = rng.permutation(classes * 2)[:classes].tolist()
    full = image_ids[: max(1, images * 2 // 3)]
    annotations = []
    for number in range(boxes):
        xywh = (rng.integers(1, 40, 4) * grid).tolist()
        annotations.append(
            {
                "id": number,
                "image_id": full[rng.integers(len(full))],
                "category_id": category_ids[rng.integers(classes)],
                "bbox": [float(value) for value in xywh],
                "area": float(xywh[2] * xywh[3]) * float(rng.choice([0.5, 1.0])),
                "iscrowd": int(rng.random() < 0.15),
            }
        )
    detections = []
    for _ in range(found):
        near = annotations[rng.integers(boxes)] if boxes and rng.random() < 0.8 else None
        box = [float(value) for value in (rng.integers(0, 40, 4) * grid)]
        if near is not None:
            box = [value + grid * float(rng.integers(-1, 2)) for value in near["bbox"]]
            box[2:] = [max(value, 0.0) for value in box[2:]]
        detections.append(
            {
                "image_id": near["image_id"] if near else image_ids[rng.integers(images)],
                "category_id": near["category_id"] if near else category_ids[rng.integers(classes)],
                "bbox": box,
                "score": round(float(rng.random()), 1),
            }
        )
    truth = {
        "images": [{"id": each, "width": 640, "height": 640} for each in image_ids],
        "categories": [{"id": each, "name": f"c{each}"} for each in category_ids],
        "annotations": annotations,
    }
    return truth, detections


def both(truth, detections, dets_per_class=0):
    one, other = (evaluate_detections(truth, detections, engine, dets_per_class) for engine in ENGINES)
    for ours, theirs in ((one.numbers, other.numbers), (one.additional_numbers, other.additional_numbers)):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert ours[key] == (None if value is None else pytest.approx(value, abs=1e-9)), key
    assert [row.name for row in one.per_class] == [row.name for row in other.per_class]
    for row, judge in zip(one.per_class, other.per_class, strict=True):
        assert (row.images, row.boxes) == (judge.images, judge.boxes)
        for ours, theirs in ((row.AP, judge.AP), (row.AP50, judge.AP50)):
            assert ours == (None if theirs is None else pytest.approx(theirs, abs=1e-9)), row.name
    assert one.curves.keys() == other.curves.keys()
    return one


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 9),
    classes=st.sampled_from([1, 2, 5, 80]),
    boxes=st.integers(0, 60),
    found=st.integers(0, 150),
    grid=st.sampled_from([0.5, 4.0, 7.25]),
)
def test_engines_agree_on_random_sets(seed, images, classes, boxes, found, grid):
    both(*random_set(np.random.default_rng(seed), images, classes, boxes, found, grid))


def test_engines_agree_on_1203_classes():
    result = both(*random_set(np.random.default_rng(3), 40, 1203, 900, 1500, 4.0))
    assert len(result.per_class) == 1203 and result.numbers["AP"] > 0.1


def crowded_set(boxes):
    """Return an image with a perfectly detected row of boxes, and one with a single box."""
    rows = [[float(30 * (n % 40)), float(30 * (n // 40)), 20.0, 20.0] for n in range(boxes)]
    places = [(7, row) for row in rows] + [(8, [0.0, 0.0, 20.0, 20.0])]
    truth = {
        "images": [{"id": 7}, {"id": 8}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": n, "image_id": image, "category_id": 1, "bbox": row, "area": 400.0, "iscrowd": 0}
            for n, (image, row) in enumerate(places)
        ],
    }
    found = [{"image_id": image, "category_id": 1, "bbox": row, "score": 0.9} for image, row in places]
    return truth, found


def test_metrics_with_an_additional_limit_have_other_names_and_leave_ap_unchanged():
    truth, found = crowded_set(150)
    plain, more = both(truth, found), both(truth, found, 300)
    assert plain.numbers["AP"] == pytest.approx(0.6634, abs=5e-3) and plain.additional_numbers == {}
    assert more.numbers == plain.numbers
    assert more.additional_numbers == {
        key: pytest.approx(1.0) for key in ("AP@maxDets=300", "AP50@maxDets=300", "AR@maxDets=300")
    }
    assert "maxDets=300 ] = 1.000" in more.words() and "maxDets=300" not in plain.words()
    assert (plain.crowded_images, crowded_images_of(100), crowded_images_of(101)) == (1, 0, 1)


def crowded_images_of(boxes):
    return evaluate_detections(*crowded_set(boxes)).crowded_images


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("field", "value"), [("score", float("nan")), ("score", float("inf")), ("bbox", [0.0, 0.0, float("nan"), 2.0])]
)
def test_numbers_that_are_not_finite_are_refused(engine, field, value):
    truth, found = crowded_set(2)
    found[1][field] = value
    with pytest.raises(InputError, match=r"detection 1: .*(nan|inf).*finite numbers"):
        evaluate_detections(truth, found, engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_sets_without_images_classes_boxes_or_detections(engine, capfd):
    none = Boxes(*(np.zeros(shape, kind) for shape, kind in (
        (0, np.int64), (0, np.int64), ((0, 4), float), (0, float), (0, bool), (0, float)
    )))  # fmt: skip
    for images, classes in ((0, 2), (3, 0), (0, 0), (3, 2)):
        curves = accumulate(engine, images, classes, none, none)
        assert curves.precision.shape == (10, 101, classes, 4, 3) and curves.recall.shape == (10, classes, 4, 3)
        assert (curves.precision == -1).all() and (curves.recall == -1).all()
    truth, found = crowded_set(2)
    assert evaluate_detections(truth, [], engine).numbers["AP"] == 0
    alone = evaluate_detections({**truth, "annotations": []}, found, engine)
    assert alone.numbers == dict.fromkeys(COCO_KEYS) and alone.detections == 3
    assert capfd.readouterr() == ("", "")


def test_pycocotools_is_not_imported_by_the_other_engine():
    script = (
        "import sys\nfrom kubeyolo.evaluation.coco_eval import evaluate_detections\n"
        "truth = {'images': [{'id': 1}], 'categories': [{'id': 1, 'name': 'a'}], 'annotations': []}\n"
        "evaluate_detections(truth, [])\nassert 'hotcoco' in sys.modules and 'pycocotools' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
