from __future__ import annotations

import cv2
import numpy as np
import pytest

from kubeyolo.data.labels import BoxTable
from kubeyolo.data.mosaic import BoxRule, Placement, Window, compose, mosaic_placements, visible_boxes, visible_pastes
from tests.data.rendered_split import split_index

SIZE = 96
RULE = BoxRule(max_aspect=100.0, min_area_left=0.1)


def smooth_tile(seed, width, height):
    coarse = np.random.default_rng(seed).integers(0, 255, (5, 5, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def warped_canvas(tiles, placements, window):
    """Paste on a real canvas and warp it: the slow way to the same picture."""
    canvas = np.full((window.canvas, window.canvas, 3), 114, np.uint8)
    for placed in placements:
        x1, y1 = max(placed.x, 0), max(placed.y, 0)
        x2, y2 = min(placed.x + placed.width, window.canvas), min(placed.y + placed.height, window.canvas)
        if x1 < x2 and y1 < y2:
            tile = tiles[placed.image]
            canvas[y1:y2, x1:x2] = tile[y1 - placed.y : y2 - placed.y, x1 - placed.x : x2 - placed.x]
    # OpenCV counts from pixel centres, the window from pixel edges.
    shift = [
        origin - window.scale * window.canvas / 2 + 0.5 * window.scale - 0.5
        for origin in (window.origin_x, window.origin_y)
    ]
    matrix = np.array([[window.scale, 0, shift[0]], [0, window.scale, shift[1]]])
    return cv2.warpAffine(canvas, matrix, (window.size, window.size), borderValue=(114, 114, 114))


def drawn_scenes(count):
    rng = np.random.default_rng(5)
    for _ in range(count):
        sizes = np.array([(SIZE, int(rng.integers(20, SIZE))) if rng.random() < 0.5 else (50, SIZE) for _ in range(4)])
        tiles = [smooth_tile(int(rng.integers(1000)), *size) for size in sizes]
        placements = mosaic_placements([0, 1, 2, 3], sizes, tuple(rng.integers(SIZE // 2, SIZE * 3 // 2, 2)))
        origin = rng.uniform(0.3, 0.7, 2) * SIZE
        window = Window(SIZE, 2 * SIZE, float(rng.uniform(0.5, 1.5)), float(origin[0]), float(origin[1]))
        yield tiles, placements, window


def test_the_composed_picture_is_the_warped_canvas():
    differences, far = [], []
    for tiles, placements, window in drawn_scenes(40):
        out = np.empty((SIZE, SIZE, 3), np.uint8)
        compose(visible_pastes(placements, window), tiles.__getitem__, out)
        difference = np.abs(out.astype(int) - warped_canvas(tiles, placements, window)).max(axis=2)
        differences.append(difference.mean())
        # Seams are mixed by the warp and may lie one pixel beside.
        far.append((difference > 40).mean())
    assert np.mean(differences) < 3.5
    assert max(far) < 0.05


def test_four_images_meet_at_the_center():
    sizes = np.array([(30, 20), (25, 40), (10, 10), (50, 50)])
    placed = mosaic_placements([0, 1, 2, 3], sizes, (60, 70))
    assert [(p.x, p.y) for p in placed] == [(30, 50), (60, 30), (50, 70), (60, 70)]


def test_neighbours_leave_no_gap_and_do_not_overlap():
    for _, placements, window in drawn_scenes(40):
        covered = np.zeros((SIZE, SIZE), int)
        pastes = visible_pastes(placements, window)
        for paste in pastes:
            x1, y1, x2, y2 = paste.target
            covered[y1:y2, x1:x2] += 1
        assert covered.max() <= 1
        if len(pastes) == 4:
            upper_left, lower_right = pastes[0].target, pastes[3].target
            assert upper_left[2:] == lower_right[:2]


def test_boxes_sit_on_what_they_mark():
    rng = np.random.default_rng(8)
    checked = 0
    for _ in range(60):
        width, height = int(rng.integers(40, SIZE)), SIZE
        x, y, w, h = (
            int(v) for v in (rng.integers(0, 20), rng.integers(0, 60), rng.integers(6, 20), rng.integers(6, 36))
        )
        tile = np.zeros((height, width, 3), np.uint8)
        tile[y : y + h, x : x + w] = 255
        table = BoxTable(split_index([(width, height)], [(0, 2, x, y, w, h, False)]))
        origin = rng.uniform(0.4, 0.6, 2) * SIZE
        window = Window(SIZE, SIZE, float(rng.uniform(0.5, 1.5)), float(origin[0]), float(origin[1]))
        pastes = visible_pastes([Placement(0, width, height, (SIZE - width) // 2, 0)], window)
        out = np.empty((SIZE, SIZE, 3), np.uint8)
        compose(pastes, lambda _, tile=tile: tile, out)
        for label, cx, cy, bw, bh in visible_boxes(pastes, table, SIZE, RULE):
            rows, columns = np.nonzero(out[:, :, 0] > 127 + 30)
            found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            corners = (cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2)
            np.testing.assert_allclose(np.array(corners) * SIZE, found, atol=1.0)
            assert label == 2
            checked += 1
    assert checked > 40


@pytest.mark.parametrize(
    "box,kept",
    [
        ((10, 10, 3, 3), True),
        ((10, 10, 2, 40), False),  # not wider than 2 px
        ((10, 10, 2.5, 90), True),
        ((-30, 10, 32.5, 20), True),
        ((97.5, 10, 2.4, 20), True),
    ],
)
def test_boxes_that_are_too_thin_are_dropped(box, kept):
    x, y, w, h = box
    table = BoxTable(split_index([(100, 100)], [(0, 0, x, y, w, h, False)]))
    pastes = visible_pastes([Placement(0, 100, 100, 0, 0)], Window(100, 100, 1.0, 50.0, 50.0))
    assert len(visible_boxes(pastes, table, 100, RULE)) == kept


def test_boxes_of_which_a_tenth_or_less_is_seen_are_dropped():
    table = BoxTable(split_index([(100, 100)], [(0, 0, 45, 0, 50, 50, False), (0, 1, 44, 50, 50, 50, False)]))
    # The window shows the left half: 5 of 50 and 6 of 50 columns of the boxes.
    pastes = visible_pastes([Placement(0, 100, 100, 0, 0)], Window(100, 100, 1.0, 100.0, 50.0))
    rows = visible_boxes(pastes, table, 100, RULE)
    np.testing.assert_allclose(rows, [[1, 0.97, 0.75, 0.06, 0.5]], atol=1e-6)


def test_a_hundred_times_longer_box_is_dropped():
    table = BoxTable(split_index([(400, 400)], [(0, 0, 0, 0, 300, 3, False), (0, 1, 0, 9, 299, 3, False)]))
    pastes = visible_pastes([Placement(0, 400, 400, 0, 0)], Window(400, 400, 1.0, 200.0, 200.0))
    assert list(visible_boxes(pastes, table, 400, RULE)[:, 0]) == [1]


def test_an_image_out_of_sight_gives_nothing():
    window = Window(100, 200, 1.5, 50.0, 50.0)
    assert visible_pastes([Placement(0, 40, 40, 0, 0)], window) == ()
    table = BoxTable(split_index([(40, 40)], [(0, 0, 0, 0, 40, 40, False)]))
    assert visible_boxes((), table, 100, RULE).shape == (0, 5)
