"""Shared areas and IoU of boxes, worked out by hand."""

from __future__ import annotations

import numpy as np

from kubeyolo.data.overlaps import areas, concentric_iou, corners, pairwise_iou, shared_areas


def test_boxes_that_share_a_quarter() -> None:
    boxes = corners(np.array([[0, 0, 2, 2], [10, 10, 1, 3]], np.float64))
    others = np.array([[1, 1, 3, 3]], np.float64)
    assert areas(boxes).tolist() == [4.0, 3.0]
    assert shared_areas(boxes, others).tolist() == [[1.0], [0.0]]
    np.testing.assert_allclose(pairwise_iou(boxes, others), [[1 / 7], [0]])


def test_the_precision_is_that_of_the_boxes_and_boxes_without_area_overlap_nothing() -> None:
    boxes = np.array([[0, 0, 0, 0], [0, 0, np.inf, 1]], np.float32)
    iou = pairwise_iou(boxes, boxes)
    assert iou.dtype == np.float32 and np.isnan(np.diag(iou)).all() and not (iou > 0).any()
    assert shared_areas(boxes[:0], boxes).shape == (0, 2)


def test_sizes_around_one_centre() -> None:
    iou = concentric_iou(np.array([[10.0, 10.0], [20.0, 40.0]]), np.array([[10.0, 10.0], [40.0, 40.0]]))
    assert iou.tolist() == [[1.0, 100 / 1600], [100 / 800, 0.5]]
