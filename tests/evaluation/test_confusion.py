"""The confusion matrix of detections, on cases that can be counted by hand."""

from __future__ import annotations

import numpy as np

from kubeyolo.data.index import SplitIndex
from kubeyolo.data.overlaps import corners, shared_areas
from kubeyolo.evaluation.coco_eval import Detection
from kubeyolo.evaluation.confusion import confusion_matrix, match

CATEGORIES = (3, 7)


def index_of(*images: list[tuple[int, tuple[float, float, float, float], bool]]) -> SplitIndex:
    """Make an index of images 100, 101, … with boxes (class, xywh, crowd)."""
    boxes = [box for image in images for box in image]
    return SplitIndex(
        image_id=np.arange(100, 100 + len(images), dtype=np.int64),
        file_name=[f"{i}.jpg" for i in range(len(images))],
        width=np.full(len(images), 100, np.int32),
        height=np.full(len(images), 100, np.int32),
        box_start=np.cumsum([0, *(len(image) for image in images)]).astype(np.int64),
        box_id=np.arange(len(boxes), dtype=np.int64),
        box_class=np.array([box[0] for box in boxes], np.int32),
        box_xywh=np.array([box[1] for box in boxes], np.float64).reshape(-1, 4),
        box_area=np.array([box[1][2] * box[1][3] for box in boxes], np.float64),
        box_crowd=np.array([box[2] for box in boxes], np.bool_),
    )


def found(image: int, category: int, box: list[float], score: float = 0.9) -> Detection:
    return Detection(image_id=image, category_id=category, bbox=box, score=score)


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
