"""The analysis of errors: planted errors are named, costs are those of corrected detections, sets may be odd."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kubeyolo.data.index import SplitIndex
from kubeyolo.evaluation.coco_eval import Detection, evaluate_detections
from kubeyolo.evaluation.error_analysis import ErrorAnalysis, analyse_errors
from kubeyolo.evaluation.error_kinds import KINDS, error_kinds
from kubeyolo.evaluation.image_outcomes import image_outcomes
from kubeyolo.evaluation.matching import match_detections
from kubeyolo.evaluation.operating_points import BEST_THRESHOLDS, kept_thresholds, operating_points
from kubeyolo.evaluation.results import EvaluationResult
from kubeyolo.evaluation.suspects import LOOSE_BOX, NO_BOX, SWAPPED_CLASS, UNDETECTED_BOX, find_suspects
from tests.evaluation.known_boxes import CATEGORIES, PLANTED, found, index_of, planted_errors, random_set

NAMES = ("cat", "dog")


def analysed(
    index: SplitIndex, detections: list[Detection], categories: Any = CATEGORIES, **more: Any
) -> ErrorAnalysis:
    names = NAMES if categories is CATEGORIES else tuple(f"class {number}" for number in range(len(categories)))
    matches = match_detections(index, categories, detections)
    return analyse_errors(matches, operating_points(matches, names), names, **more)


@pytest.fixture(scope="module")
def planted() -> tuple[SplitIndex, list[Detection], dict[str, list[int]], ErrorAnalysis]:
    index, detections, images = planted_errors()
    return index, detections, images, analysed(index, detections)


def test_every_planted_error_is_named_by_its_kind(planted: Any) -> None:
    _, _, images, analysis = planted
    assert {each.kind: each.count for each in analysis.costs.kinds} == dict.fromkeys(KINDS, PLANTED)
    matches, errors = analysis.matches, analysis.errors
    for kind in KINDS[:-1]:
        assert sorted(matches.image[errors.of(kind)].tolist()) == images[kind]
    assert matches.index.box_image()[errors.missed].tolist() == images["missed"]
    by_class = {each.kind: each.by_class for each in analysis.costs.kinds}
    assert by_class["classification"] == [0, PLANTED] and by_class["missed"] == [PLANTED, 0]


def corrected(kind: str, index: SplitIndex, detections: list[Detection], images: list[int]) -> list[Detection]:
    """Return the detections as they were if the planted errors of a kind had not been made."""
    rows = {100 + i for i in images}
    box = index.box_xywh[0].tolist()
    if kind == "classification":
        return [{**row, "category_id": 3} if row["image_id"] in rows else row for row in detections]  # type: ignore[misc]
    if kind == "localization":
        return [{**row, "bbox": box} if row["image_id"] in rows else row for row in detections]  # type: ignore[misc]
    return [row for row in detections if row["image_id"] not in rows or row["score"] == 0.95]


@pytest.mark.parametrize("kind", KINDS)
def test_the_cost_of_a_kind_is_the_ap50_that_pycocotools_finds_without_it(planted: Any, kind: str) -> None:
    index, detections, images, analysis = planted
    kept = index
    if kind == "missed":
        kept = index.select(~np.isin(np.arange(len(index)), images[kind]))
    else:
        detections = corrected(kind, index, detections, images[kind])
    after = evaluate_detections(kept.to_coco(NAMES, CATEGORIES), detections).numbers["AP50"]
    before = evaluate_detections(index.to_coco(NAMES, CATEGORIES), planted[1]).numbers["AP50"]
    cost = next(each.dAP50 for each in analysis.costs.kinds if each.kind == kind)
    assert pytest.approx(before, abs=1e-9) == analysis.costs.AP50
    assert cost == pytest.approx(after - before, abs=1e-9)
    # Detections below all hits cost nothing; the other kinds hide boxes or come before hits.
    assert cost > 0.01 if kind in ("classification", "localization", "missed") else cost >= 0


def test_all_false_positives_and_all_false_negatives_cost_what_is_lost_without_them(planted: Any) -> None:
    index, detections, _, analysis = planted
    truth, hits = index.to_coco(NAMES, CATEGORIES), analysis.matches.box >= 0
    right = {
        (int(i), float(s)) for i, s in zip(analysis.matches.image[hits], analysis.matches.score[hits], strict=True)
    }
    only_hits = [row for row in detections if (row["image_id"] - 100, row["score"]) in right]
    after = evaluate_detections(truth, only_hits).numbers["AP50"]
    assert analysis.costs.false_positives_dAP50 == pytest.approx(after - analysis.costs.AP50, abs=1e-9)
    found_images = np.isin(np.arange(len(index)), analysis.matches.image[hits])
    kept = index.select(found_images)
    assert len(kept) == len(index) - 3 * PLANTED
    costs = analysed(index, detections).costs
    assert costs.false_negatives_dAP50 > max(each.dAP50 for each in costs.kinds if each.kind == "missed")


def test_suspects_name_every_planted_annotation(planted: Any) -> None:
    _, _, images, analysis = planted
    named: dict[str, list[int]] = {}
    for suspect in analysis.suspects:
        named.setdefault(suspect.kind, []).append(suspect.image)
    assert {kind: sorted(rows) for kind, rows in named.items()} == {
        NO_BOX: images["background"],
        SWAPPED_CLASS: images["classification"],
        LOOSE_BOX: images["localization"],
        UNDETECTED_BOX: images["missed"],
    }
    suspicions = [suspect.suspicion for suspect in analysis.suspects]
    assert suspicions == sorted(suspicions, reverse=True) and 0 < suspicions[-1] <= suspicions[0] <= 1


def test_suspects_are_a_coco_file_with_the_ids_of_the_data_set(planted: Any, tmp_path: Any) -> None:
    from pycocotools.coco import COCO

    index, _, images, analysis = planted
    path = tmp_path / "suspects.json"
    path.write_bytes(analysis.documents(CATEGORIES)["suspects.json"])
    coco = COCO(str(path))
    document = coco.dataset
    assert sorted(coco.getImgIds()) == sorted(
        100 + i for kind in ("background", "classification", "localization", "missed") for i in images[kind]
    )
    assert document["categories"] == [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    rows = {row["attributes"]["suspect"]: row for row in document["annotations"]}
    assert [row["attributes"]["rank"] for row in document["annotations"]] == list(range(1, 4 * PLANTED + 1))
    assert len({row["id"] for row in document["annotations"]}) == 4 * PLANTED
    own = set(index.box_id.tolist())
    assert rows[NO_BOX]["id"] not in own and rows[NO_BOX]["bbox"] == [70, 70, 20, 20]
    assert rows[SWAPPED_CLASS]["id"] in own and rows[SWAPPED_CLASS]["category_id"] == 3
    assert rows[SWAPPED_CLASS]["attributes"]["detected_class"] == "dog"


def test_ids_that_are_texts_stay_texts(planted: Any) -> None:
    index, detections, images, _ = planted
    named = replace(index, image_key=[f"frame {i}" for i in range(len(index))])
    documents = analysed(named, detections).documents(("k3", "k7"))
    suspects, counts = json.loads(documents["suspects.json"]), json.loads(documents["images.json"])
    assert {row["id"] for row in suspects["categories"]} == {"k3", "k7"}
    first = next(row for row in suspects["annotations"] if row["attributes"]["suspect"] == NO_BOX)
    assert first["image_id"] == f"frame {images['background'][0]}" and first["category_id"] == "k3"
    assert [row["id"] for row in counts] == named.image_key


def test_of_very_many_objects_without_a_box_the_most_confident_are_suspects() -> None:
    places = [[10 * (number % 10), 10 * (number // 10), 9, 9] for number in range(80)]
    index = index_of([(1, (90, 90, 9, 9), False)])
    detections = [found(100, 3, place, 0.6 + number / 1000) for number, place in enumerate(places)]
    matches = match_detections(index, CATEGORIES, detections)
    points = operating_points(matches, NAMES)
    outcomes = image_outcomes(matches, points.by_class())
    suspects = find_suspects(matches, error_kinds(matches), outcomes, most=5)
    assert [suspect.suspicion for suspect in suspects] == pytest.approx([0.679, 0.678, 0.677, 0.676, 0.675])


def test_an_object_detected_as_two_classes_without_a_box_is_one_suspect() -> None:
    index = index_of([(0, (0, 0, 10, 10), False)])
    detections = [found(100, 3, [0, 0, 10, 10], 0.95), found(100, 3, [50, 50, 10, 10]), found(100, 7, [50, 51, 10, 10])]
    suspects = analysed(index, detections).suspects
    assert [(suspect.kind, suspect.suspicion) for suspect in suspects] == [(NO_BOX, 0.9)]


def test_counts_of_each_image_are_at_the_best_thresholds() -> None:
    boxes = [(0, (0, 0, 10, 10), False), (0, (30, 0, 10, 10), False), (1, (60, 60, 10, 10), False)]
    index = index_of(boxes, [], [(0, (0, 0, 10, 10), False)])
    detections = [
        found(100, 3, [0, 0, 10, 10], 0.9),
        found(100, 3, [60, 0, 10, 10], 0.6),
        found(101, 3, [0, 0, 10, 10], 0.3),
        found(102, 3, [0, 0, 10, 10], 0.5),
    ]
    analysis = analysed(index, detections)
    # At .4 two of three detections are right and one of three cats is missed; .3 would add a false alarm.
    assert analysis.points.best[0].threshold == pytest.approx(0.4)
    assert json.loads(analysis.documents(CATEGORIES)["images.json"]) == [
        {"id": 100, "file_name": "0.jpg", "hits": 1, "misses": 2, "false_alarms": 1},
        {"id": 101, "file_name": "1.jpg", "hits": 0, "misses": 0, "false_alarms": 0},
        {"id": 102, "file_name": "2.jpg", "hits": 1, "misses": 0, "false_alarms": 0},
    ]
    assert analysis.outcomes.worst(5) == [0]


def test_the_best_threshold_of_each_class_has_the_largest_f1_of_all_scores() -> None:
    index, categories, detections = random_set(3, 30, 4, 6)
    matches = match_detections(index, categories, detections)
    points = operating_points(matches, "abcd")

    def f1(number: int, threshold: float) -> float:
        kept = (matches.label == number) & ~matches.ignored & (matches.score >= threshold)
        return float(2 * (matches.box[kept] >= 0).sum() / (kept.sum() + matches.totals[number]))

    for number, point in enumerate(points.best):
        largest = max(f1(number, float(score)) for score in np.unique(matches.score))
        assert pytest.approx(largest) == point.F1 and f1(number, point.threshold) == pytest.approx(largest)
        curve = [f1(number, each / 100) for each in range(101)]
        assert points.F1[number] == pytest.approx(curve)


def test_thresholds_are_kept_in_both_forms_of_a_bundle_and_read_from_neither_before() -> None:
    index, detections, _ = planted_errors()
    best = operating_points(match_detections(index, CATEGORIES, detections), NAMES).thresholds
    assert best is not None and best.of(("dog", "cow")) == [best.classes["dog"], best.overall]
    result = EvaluationResult(numbers={"AP": 0.5}, best_thresholds=best)
    exported = {"onnx": result.model_dump(mode="json")}
    published = {"onnx": {"AP": 0.5}, BEST_THRESHOLDS: {"onnx": best.model_dump()}}
    assert kept_thresholds(exported, "onnx") == kept_thresholds(published, "onnx") == best
    assert kept_thresholds({"onnx": {"AP": 0.5}}, "onnx") is None
    assert kept_thresholds({"onnx": {"numbers": {"AP": 0.5}}}, "onnx") is None
    assert EvaluationResult.from_json('{"numbers": {"AP": 0.5}}').best_thresholds is None


def test_reliability_compares_scores_with_the_share_of_right_detections() -> None:
    index = index_of(*[[(0, (0, 0, 10, 10), False)]] * 8)
    right = [found(100 + i, 3, [0, 0, 10, 10], 0.9) for i in range(8)]
    wrong = [found(100 + i, 3, [50, 50, 10, 10], 0.9) for i in range(2)]
    faint = [found(100, 3, [80, 80, 10, 10], 0.25), found(100, 3, [80, 80, 10, 10], 0.01)]
    measured = analysed(index, [*right, *wrong, *faint]).reliability
    assert [(row.low, row.detections, row.precision) for row in measured.bins if row.detections] == [
        (0.2, 1, 0.0),
        (0.9, 10, pytest.approx(0.8)),
    ]
    # (|.9 - .8| · 10 + |.25 - 0| · 1) / 11
    assert measured.expected_calibration_error == pytest.approx(1.25 / 11)
    assert measured.bias == pytest.approx((9.0 + 0.25 - 8) / 11)


def test_a_slice_has_the_ap50_of_its_images_alone() -> None:
    index, categories, detections = random_set(5, 40, 3, 6)
    analysis = analysed(index, detections, categories, brightness=np.linspace(0, 255, 40))
    families = {family.key: family for family in analysis.slices}
    assert families.keys() == {
        *("object_size", "overlap", "crowding", "image_size", "image_shape", "folder", "brightness"),
    }
    boxes, images = int(analysis.matches.totals.sum()), len(index)
    for family in families.values():
        assert sum(row.boxes for row in family.slices) == boxes, family.key
    for key in ("crowding", "image_size", "image_shape", "folder", "brightness"):
        assert sum(row.images for row in families[key].slices) == images
    chosen = {
        ("folder", "camera 1"): np.array([name.startswith("camera 1/") for name in index.file_name]),
        ("image_size", "120 px"): index.width == 120,
        ("image_shape", "square"): index.width == index.height,
    }
    for (key, name), mask in chosen.items():
        kept = index.select(mask)
        ids = set(kept.image_id.tolist())
        rows = [row for row in detections if row["image_id"] in ids]
        truth = kept.to_coco([f"class {number}" for number in range(3)], categories)
        slice_ = next(row for row in families[key].slices if row.name == name)
        assert slice_.images == len(kept)
        assert pytest.approx(evaluate_detections(truth, rows).numbers["AP50"], abs=1e-9) == slice_.AP50


def test_many_folders_are_a_bounded_number_of_slices() -> None:
    index = index_of(*[[(0, (0, 0, 10, 10), False)]] * 30)
    names = [f"{i if i > 10 else 0}/{i}.jpg" for i in range(30)]
    object.__setattr__(index, "file_name", names)
    detections = [found(100 + i, 3, [0, 0, 10, 10]) for i in range(30)]
    family = next(each for each in analysed(index, detections).slices if each.key == "folder")
    assert len(family.slices) == 12
    assert (family.slices[0].name, family.slices[0].images) == ("0", 11)
    assert (family.slices[-1].name, family.slices[-1].images) == ("all other folders", 9)


@pytest.mark.parametrize(
    ("images", "classes", "per_image", "with_detections"),
    [(0, 1, 1, True), (3, 1, 0, True), (3, 1, 4, False), (3, 1203, 0, False), (20, 1203, 8, True), (1, 1, 9, True)],
)
def test_odd_sets_are_analysed(images: int, classes: int, per_image: int, with_detections: bool) -> None:
    index, categories, detections = random_set(1, images, classes, per_image, crowd=0.3)
    analysis = analysed(index, detections if with_detections else [], categories)
    documents = {name: json.loads(document) for name, document in analysis.documents(categories).items()}
    assert len(documents["images.json"]) == images
    kinds = documents["analysis.json"]["error_kinds"]["kinds"]
    assert [row["kind"] for row in kinds] == list(KINDS) and all(len(row["by_class"]) == classes for row in kinds)
    has_boxes = bool(analysis.matches.regular.any())
    assert all((row["dAP50"] is not None) == has_boxes for row in kinds)
    if not with_detections and has_boxes:
        # Without the missed boxes nothing is left to find.
        assert kinds[-1]["dAP50"] == 1.0 and analysis.points.thresholds is None


def test_the_kept_keys_of_images_are_slices() -> None:
    index = index_of(*[[(0, (0, 0, 10, 10), False)]] * 12)
    facts = [{"camera": f"c{i % 2}", "day": i < 3, "exposure": i / 10, "same": 1} for i in range(12)]
    del facts[0]["camera"]
    index = replace(index, image_facts=[json.dumps(each) for each in facts])
    detections = [found(100 + i, 3, [0, 0, 10, 10]) for i in range(1, 12, 2)]
    families = {each.title: each.slices for each in analysed(index, detections).slices}
    assert families.keys() == {f"Key {key} of the image" for key in ("camera", "day", "exposure")}
    cameras = {row.name: (row.images, row.recall) for row in families["Key camera of the image"]}
    assert cameras == {"c1": (6, 1.0), "c0": (5, 0.0), "no value": (1, 0.0)}
    assert {row.name: row.images for row in families["Key day of the image"]} == {"false": 9, "true": 3}
    assert [row.images for row in families["Key exposure of the image"]] == [4, 4, 4]
