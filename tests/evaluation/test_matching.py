"""Matches and average precision of many groups: the numbers of pycocotools, on random sets and odd ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubeyolo.evaluation.average_precision import average_precisions
from kubeyolo.evaluation.coco_eval import COCO_LIMIT, evaluate_detections
from kubeyolo.evaluation.matching import match_detections
from tests.evaluation.known_boxes import CATEGORIES, found, index_of, random_set


def class_precisions(index, categories, detections) -> list[float | None]:
    matches = match_detections(index, categories, detections)
    counted = ~matches.ignored
    values = average_precisions(matches.label[counted], matches.box[counted] >= 0, matches.totals)
    return [None if np.isnan(value) else float(value) for value in values]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from((1, 2, 7)), st.integers(1, 12))
def test_ap50_of_random_sets_with_crowds_and_equal_scores_is_that_of_pycocotools(
    seed, images, classes, per_image
) -> None:
    index, categories, detections = random_set(seed, images, classes, per_image, crowd=0.2)
    names = [f"class {number}" for number in range(classes)]
    expected = [row.AP50 for row in evaluate_detections(index.to_coco(names, categories), detections).per_class]
    assert class_precisions(index, categories, detections) == pytest.approx(expected, abs=1e-9)


def test_detections_beyond_a_hundred_of_a_class_do_not_count() -> None:
    index = index_of([(0, (0, 0, 10, 10), False)])
    others = [found(100, 3, [50, 50, 10, 10], 0.9)] * COCO_LIMIT
    matches = match_detections(index, CATEGORIES, [*others, found(100, 3, [0, 0, 10, 10], 0.5)])
    assert len(matches.score) == COCO_LIMIT and matches.found_by.tolist() == [-1]
    matches = match_detections(index, CATEGORIES, [*others, found(100, 7, [0, 0, 10, 10], 0.5)])
    assert len(matches.score) == COCO_LIMIT + 1


def test_the_best_detection_chooses_first_and_a_displaced_one_takes_its_next_box() -> None:
    index = index_of([(0, (0, 0, 10, 10), False), (0, (2, 0, 10, 10), False)])
    # Both prefer the second box; the weaker one overlaps the first box by 9/11 as well.
    detections = [found(100, 3, [1.5, 0, 10, 10], 0.6), found(100, 3, [2, 0, 10, 10], 0.9)]
    matches = match_detections(index, CATEGORIES, detections)
    assert matches.score.tolist() == [0.9, 0.6]
    assert matches.box.tolist() == [1, 0] and matches.found_by.tolist() == [1, 0]


def test_detections_in_a_crowd_of_their_class_are_ignored() -> None:
    index = index_of([(0, (0, 0, 50, 50), True)])
    detections = [found(100, 3, [5, 5, 10, 10]), found(100, 7, [5, 5, 10, 10])]
    matches = match_detections(index, CATEGORIES, detections)
    assert sorted(zip(matches.label.tolist(), matches.ignored.tolist(), matches.false.tolist(), strict=True)) == [
        (0, True, False),
        (1, False, True),
    ]
    assert matches.totals.tolist() == [0, 0]


@pytest.mark.parametrize("boxes", [0, 1])
def test_sets_without_detections_or_boxes_have_matches(boxes: int) -> None:
    index = index_of([(0, (0, 0, 10, 10), False)][:boxes], [])
    none = match_detections(index, CATEGORIES, [])
    assert none.found_by.tolist() == [-1] * boxes and not len(none.near.iou)
    one = match_detections(index, CATEGORIES, [found(101, 3, [0, 0, 10, 10])])
    assert one.false.tolist() == [True]


def test_every_recall_needs_the_boxes_that_a_comparison_of_recalls_needs() -> None:
    totals = np.arange(1, 400)
    group = np.repeat(np.arange(len(totals)), totals)
    # All boxes are found, so each precision is 1 whatever the rounding; one less and the last recall is not reached.
    hit = np.ones(len(group), np.bool_)
    assert average_precisions(group, hit, totals).tolist() == [1.0] * len(totals)
    hit[np.cumsum(totals) - 1] = False
    reached = [np.linspace(0, 1, 101) <= (total - 1) / total if total > 1 else np.zeros(101) for total in totals]
    assert average_precisions(group, hit, totals) == pytest.approx([each.mean() for each in reached], abs=1e-12)
