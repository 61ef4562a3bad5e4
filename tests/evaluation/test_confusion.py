"""The confusion matrix of detections, on cases that can be counted by hand."""

from __future__ import annotations

import numpy as np

from kubeyolo.data.overlaps import corners, shared_areas
from kubeyolo.evaluation.confusion import confusion_matrix, match
from tests.evaluation.known_boxes import CATEGORIES, found, index_of


def test_hits_confusions_misses_and_ghosts_are_counted() -> None:
    index = index_of(
        [(0, (0, 0, 10, 10), False), (1, (50, 50, 10, 10), False)],
        [(1, (0, 0, 10, 10), False)],
    )
    detections = [
        found(100, 3, [0, 0, 10, 10]),  # a hit
        found(100, 3, [50, 50, 10, 10]),  # class 1 taken for class 0
        found(100, 7, [80, 80, 10, 10]),  # nothing is there
        found(101, 7, [0, 0, 10, 10], score=0.1),  # too faint: the box is missed
    ]
    assert confusion_matrix(index, CATEGORIES, detections).tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]


def test_a_second_detection_of_a_box_is_a_ghost() -> None:
    index = index_of([(0, (0, 0, 10, 10), False)])
    detections = [found(100, 3, [0, 0, 10, 9]), found(100, 7, [0, 0, 10, 10])]
    assert confusion_matrix(index, CATEGORIES, detections).tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]


def test_detections_inside_a_crowd_do_not_count() -> None:
    index = index_of([(0, (0, 0, 50, 50), True)], [])
    detections = [found(100, 3, [5, 5, 10, 10]), found(101, 3, [5, 5, 10, 10])]
    assert confusion_matrix(index, CATEGORIES, detections).tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_the_best_overlap_is_matched_first() -> None:
    truth = corners(np.array([[0, 0, 10, 10], [2, 0, 10, 10]], np.float64))
    boxes = corners(np.array([[2, 0, 10, 10]], np.float64))
    assert shared_areas(truth, boxes).tolist() == [[80.0], [100.0]]
    assert match(truth, boxes) == [(1, 0)]
    assert match(truth[:0], boxes) == match(truth, boxes[:0]) == []
