from __future__ import annotations

import numpy as np

from kubeyolo.data.labels import BoxTable, pack_labels, training_capacity
from tests.data.rendered_split import split_index


def rows(*sides):
    return np.array([[number, 0.5, 0.5, side, side] for number, side in enumerate(sides)], np.float32).reshape(-1, 5)


def test_crowd_boxes_and_boxes_without_area_are_left_out():
    index = split_index(
        [(100, 50), (80, 80), (10, 10)],
        [(0, 1, 10, 5, 50, 25, False), (0, 0, 0, 0, 100, 50, True), (1, 2, 70, 70, 20, 20, False)],
    )
    table = BoxTable(index)
    assert list(table.start) == [0, 1, 2, 2]
    assert list(table.classes) == [1, 2]
    np.testing.assert_allclose(table.corners, [[0.1, 0.1, 0.6, 0.6], [0.875, 0.875, 1, 1]])


def test_labels_name_their_image_and_unused_rows_are_marked():
    out = np.full((64, 6), 7, np.float32)
    assert pack_labels([rows(0.5), rows(), rows(0.1, 0.2)], out) == 0
    np.testing.assert_array_equal(out[:3, 0], [0, 2, 2])
    np.testing.assert_allclose(out[2], [2, 1, 0.5, 0.5, 0.2, 0.2])
    assert (out[3:, 0] == -1).all() and (out[3:, 1:] == 0).all()


def test_overflow_leaves_out_the_smallest_boxes_and_counts_them():
    out = np.empty((4, 6), np.float32)
    assert pack_labels([rows(0.3, 0.1, 0.2), rows(0.1, 0.4, 0.1)], out) == 2
    np.testing.assert_allclose(out[:, 5], [0.3, 0.1, 0.2, 0.4])
    np.testing.assert_array_equal(out[:, 0], [0, 0, 0, 1])


def test_capacity_is_a_multiple_of_64_above_what_batches_hold():
    counts = np.random.default_rng(0).poisson(20, 512)
    capacity = training_capacity(counts, 8)
    assert capacity == 256
    batches = np.random.default_rng(1).poisson(20, (100_000, 8)).sum(axis=1)
    assert batches.max() < capacity
    assert training_capacity(np.zeros(10, np.int64), 8) == 64
