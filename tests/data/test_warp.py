"""Boxes of rotated, sheared, tilted and copied objects sit on their pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubeyolo.config.training_schema import AugmentConfig
from kubeyolo.data.augment import Augmenter
from kubeyolo.data.labels import BoxTable
from kubeyolo.data.mosaic import BoxRule, Placement, Window, compose, visible_boxes, visible_pastes
from kubeyolo.data.warp import (
    LEAST_WEIGHT,
    CanvasBoxes,
    Distortion,
    WarpedScene,
    draw_copies,
    draw_distortion,
    mirrored,
    warp_matrix,
    warped_corners,
)
from tests.data.rendered_split import RenderedSplit, split_index

SIZE = 96
ALL = BoxRule(max_aspect=1e9, min_area_left=0.0)
STILL = Window(SIZE, SIZE, 1.0, SIZE / 2, SIZE / 2)
WHOLE = (Placement(0, SIZE, SIZE, 0, 0),)


def table_of(*boxes, size=(SIZE, SIZE)):
    return BoxTable(split_index([size], [(0, number, *box, False) for number, box in enumerate(boxes)]))


def corners_of(labels, size=SIZE):
    """Return x1, y1, x2, y2 in pixels of labels class, cx, cy, w, h."""
    centers, halves = labels[:, 1:3] * size, labels[:, 3:] * size / 2
    return np.concatenate([centers - halves, centers + halves], axis=1)


def scene_of(window, distortion, copies=(), placements=WHOLE):
    return WarpedScene(tuple(placements), window, warp_matrix(window, distortion), copies)


def painted(scene, table, *tiles):
    window = scene.window
    canvas, out = (
        np.empty((window.canvas, window.canvas, 3), np.uint8),
        np.empty((window.size, window.size, 3), np.uint8),
    )
    scene.paint(table, tiles.__getitem__, canvas, out)
    return out


def test_a_quarter_turn_exchanges_the_sides_of_a_box():
    # 10 to 30 from the left and 20 to 60 from the top: turned counterclockwise, x becomes y from below.
    labels = scene_of(STILL, Distortion(angle=90.0)).labels(table_of((10, 20, 20, 40)), ALL)
    np.testing.assert_allclose(corners_of(labels), [[20, SIZE - 30, 60, SIZE - 10]], atol=1e-4)
    tile = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    turned = painted(scene_of(STILL, Distortion(angle=90.0)), table_of(), tile)
    np.testing.assert_array_equal(turned, np.rot90(tile))


def test_an_eighth_turn_of_a_square_is_wider_by_the_root_of_two():
    labels = scene_of(STILL, Distortion(angle=45.0)).labels(table_of((38, 38, 20, 20)), ALL)
    half = 10 * 2**0.5
    np.testing.assert_allclose(corners_of(labels), [[48 - half, 48 - half, 48 + half, 48 + half]], atol=1e-4)


def test_a_shear_moves_corners_by_the_tangent_of_its_angle():
    slope = np.degrees(np.arctan(0.25))
    labels = scene_of(STILL, Distortion(shear_x=slope)).labels(table_of((40, 28, 20, 40)), ALL)
    # 20 above the centre the box is moved by 5 to the left, 20 below by 5 to the right.
    np.testing.assert_allclose(corners_of(labels), [[35, 28, 65, 68]], atol=1e-4)
    labels = scene_of(STILL, Distortion(shear_y=slope)).labels(table_of((28, 40, 40, 20)), ALL)
    np.testing.assert_allclose(corners_of(labels), [[28, 35, 68, 65]], atol=1e-4)


def test_a_perspective_divides_by_the_distance_from_the_centre():
    matrix = warp_matrix(STILL, Distortion(tilt_x=0.001))
    for x, y in ((0.0, 0.0), (96.0, 10.0), (48.0, 90.0)):
        point = matrix @ (x, y, 1.0)
        weight = 1 + 0.001 * (x - 48)
        np.testing.assert_allclose(point[:2] / point[2], (48 + (x - 48) / weight, 48 + (y - 48) / weight))
    np.testing.assert_allclose(warp_matrix(STILL, Distortion()), np.eye(3), atol=1e-12)


def test_rotation_and_scale_come_before_the_shear_and_the_shift_last():
    window = Window(SIZE, 2 * SIZE, 0.5, 40.0, 50.0)
    matrix = warp_matrix(window, Distortion(angle=90.0, shear_x=45.0))
    # (10, 0) from the centre of the canvas is turned to (0, -10), halved to (0, -5), sheared to (-5, -5), shifted.
    np.testing.assert_allclose(matrix @ (SIZE + 10, SIZE, 1), (35, 45, 1), atol=1e-9)


def test_no_corner_of_a_large_canvas_is_behind_the_viewer():
    window = Window(1536, 3072, 1.0, 768.0, 768.0)
    matrix = warp_matrix(window, Distortion(tilt_x=0.001, tilt_y=-0.001))
    corners = np.array([(0, 0, 1), (3072, 0, 1), (0, 3072, 1), (3072, 3072, 1)], float)
    assert (corners @ matrix.T)[:, 2].min() == pytest.approx(LEAST_WEIGHT)
    mild = warp_matrix(Window(640, 640, 1.0, 320.0, 320.0), Distortion(tilt_x=0.001, tilt_y=-0.001))
    assert mild[2, 0] == 0.001


DISTORTIONS = st.builds(
    Distortion,
    st.floats(-180, 180),
    st.floats(-30, 30),
    st.floats(-30, 30),
    st.floats(-0.001, 0.001),
    st.floats(-0.001, 0.001),
)


@settings(max_examples=150, deadline=None)
@given(
    DISTORTIONS,
    st.floats(0.6, 1.5),
    st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)),
    st.tuples(st.integers(0, 160), st.integers(0, 160), st.integers(12, 50), st.integers(12, 50)),
)
def test_the_box_of_a_painted_marker_is_the_warped_box(distortion, scale, shift, box):
    side = 160
    x, y, w, h = min(box[0], side - box[2]), min(box[1], side - box[3]), box[2], box[3]
    window = Window(side, side, scale, (0.5 + shift[0]) * side, (0.5 + shift[1]) * side)
    scene = scene_of(window, distortion, placements=[Placement(0, side, side, 0, 0)])
    tile = np.zeros((side, side, 3), np.uint8)
    tile[y : y + h, x : x + w] = 255
    low, high = warped_corners(np.array([[x, y, x + w, y + h]], float), scene.matrix)
    rows, columns = np.nonzero(painted(scene, table_of(), tile)[:, :, 0] > 140)
    labels = scene.labels(table_of((x, y, w, h), size=(side, side)), ALL)
    if not len(rows):
        assert len(labels) == 0 or (labels[:, 3:] * side).min() < 4
        return
    if low.min() < 0 or high.max() > side:
        # A cut marker need not reach the corners of its box.
        found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        for mine, seen in zip(corners_of(labels, side), [found], strict=False):
            assert (mine[:2] <= np.add(seen[:2], 1)).all() and (mine[2:] >= np.subtract(seen[2:], 1)).all()
        return
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)
    # A sharp corner covers less than half of its outermost pixels.
    sharp = 1.0 + 1.5 * (abs(distortion.shear_x) + abs(distortion.shear_y)) / 30
    np.testing.assert_allclose(corners_of(labels, side), [found], atol=sharp)
    assert (corners_of(labels, side)[0, :2] <= found[:2] + 1).all()


def test_a_canvas_that_is_only_scaled_and_shifted_is_painted_as_without_a_canvas():
    rng = np.random.default_rng(3)
    for _ in range(10):
        tile = cv2.resize(rng.integers(0, 255, (5, 5, 3)).astype(np.uint8), (SIZE, 70), interpolation=cv2.INTER_CUBIC)
        window = Window(SIZE, SIZE, float(rng.uniform(0.5, 1.5)), *(rng.uniform(0.3, 0.7, 2) * SIZE).tolist())
        placed, table = (Placement(0, SIZE, 70, 0, 13),), table_of((20, 9, 50, 40), size=(SIZE, 70))
        pastes, scene = visible_pastes(placed, window), scene_of(window, Distortion(), placements=placed)
        direct = np.empty((SIZE, SIZE, 3), np.uint8)
        compose(pastes, lambda _, tile=tile: tile, direct)
        difference = np.abs(painted(scene, table, tile).astype(int) - direct)
        assert difference.mean() < 3 and (difference.max(axis=2) > 40).mean() < 0.05
        rule = BoxRule(100.0, 0.1)
        np.testing.assert_allclose(
            corners_of(scene.labels(table, rule)), corners_of(visible_boxes(pastes, table, SIZE, rule)), atol=1.0
        )


@pytest.mark.parametrize(("rule", "kept"), [(BoxRule(20.0, 0.2), [1]), (BoxRule(100.0, 0.1), [0, 1, 2])])
def test_the_rule_of_each_system_for_long_and_cut_boxes(rule, kept):
    # A box of 3 x 66, a plain box, and a box of which 15 % are left after a shift by 64 to the left.
    table = table_of((70, 10, 3, 66), (80, 40, 15, 10), (47, 80, 20, 10))
    window = Window(SIZE, SIZE, 1.0, SIZE / 2 - 64, SIZE / 2)
    assert list(scene_of(window, Distortion()).labels(table, rule)[:, 0]) == kept
    pastes = visible_pastes(WHOLE, window)
    assert list(visible_boxes(pastes, table, SIZE, rule)[:, 0]) == kept


def test_the_area_that_is_left_is_compared_with_the_scaled_area():
    # Half the scale, a quarter of the area: nothing of the first box is cut, and half of the second.
    window = Window(SIZE, SIZE, 0.5, 14.0, SIZE / 2)
    scene, table = scene_of(window, Distortion()), table_of((40, 40, 20, 20), (0, 70, 40, 20))
    np.testing.assert_allclose(corners_of(scene.labels(table, BoxRule(100.0, 0.6))), [[10, 44, 20, 54]], atol=1e-4)
    assert list(scene.labels(table, BoxRule(100.0, 0.4))[:, 0]) == [0, 1]


def canvas_boxes(*boxes):
    corners = np.array([(x, y, x + w, y + h) for x, y, w, h in boxes], float)
    return CanvasBoxes(np.arange(len(boxes), dtype=float), corners, (corners[:, 2:] - corners[:, :2]).prod(axis=1))


def copies(share, *boxes, seed=0):
    return draw_copies(np.random.default_rng(seed), canvas_boxes(*boxes), 100, share, BoxRule(100.0, 0.1))


def test_a_copy_covers_less_than_three_tenths_of_every_box():
    # The copy of a box at 10 to 30 is at 70 to 90, and covers columns 70 and on of the second box.
    assert copies(1.0, (10, 0, 20, 10), (51, 0, 24, 10)) == (0, 1)  # 5 of 24 covered; the other way 5 of 20
    assert copies(1.0, (10, 0, 20, 10), (51, 0, 28, 10)) == ()  # 9 of 28, and 9 of 20
    assert copies(1.0, (10, 0, 20, 10), (51, 20, 28, 10)) == (0, 1)
    # A box in the middle covers itself, and equal boxes are not copied twice to the same position.
    assert copies(1.0, (40, 0, 20, 10)) == ()
    assert copies(1.0, (0, 0, 20, 10), (0, 0, 20, 10)) == (0,)
    assert copies(1.0, (0, 0, 1.5, 10)) == ()


def test_objects_are_copied_with_the_given_probability():
    row = [(4 * column, 8 * line, 3, 6) for line in range(10) for column in range(12)]
    numbers = [len(copies(0.1, *row, seed=seed)) for seed in range(50)]
    assert 0.08 < np.mean(numbers) / 120 < 0.12
    assert copies(0.0, *row) == ()


def test_a_copy_shows_its_object_mirrored_and_is_labelled_as_the_object():
    tile = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    table = table_of((60, 50, 9, 9), (10, 20, 20, 30))
    scene = scene_of(STILL, Distortion(), copies=(1,))
    out = painted(scene, table, tile)
    np.testing.assert_array_equal(out[20:50, 66:86], tile[20:50, 10:30][:, ::-1])
    left_as_it_was = np.ones((SIZE, SIZE), bool)
    left_as_it_was[20:50, 66:86] = False
    np.testing.assert_array_equal(out[left_as_it_was], tile[left_as_it_was])
    labels = scene.labels(table, ALL)
    assert list(labels[:, 0]) == [0, 1, 1]
    np.testing.assert_allclose(corners_of(labels), [[60, 50, 69, 59], [10, 20, 30, 50], [66, 20, 86, 50]], atol=1e-4)
    np.testing.assert_array_equal(mirrored(np.array([[10.0, 20, 30, 50]]), SIZE), [[66, 20, 86, 50]])


def augmenter_of(**changes):
    split = RenderedSplit(images=20, seed=2, most_boxes=8)
    split.index.box_crowd[:] = False
    still = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "scale": 0.2}
    config = AugmentConfig(**{**still, **changes})
    return split, Augmenter(config, BoxTable(split.index), split.index.width, split.index.height, SIZE)


def test_copies_are_made_in_mosaics_only():
    _, augmenter = augmenter_of(copy_paste=1.0)
    plans = [augmenter.draw(np.random.default_rng(image), image) for image in range(20)]
    assert sum(isinstance(plan.scene, WarpedScene) for plan in plans) > 10
    assert any(plan.scene.copies for plan in plans if isinstance(plan.scene, WarpedScene))
    alone = [augmenter.draw(np.random.default_rng(image), image, mosaic=False) for image in range(20)]
    assert not any(isinstance(plan.scene, WarpedScene) for plan in alone)
    # Rotation stays when mosaics end.
    _, turning = augmenter_of(degrees=10.0)
    plan = turning.draw(np.random.default_rng(0), 0, mosaic=False)
    assert isinstance(plan.scene, WarpedScene) and len(plan.scene.placements) == 1


def test_mixup_of_mosaics_only_leaves_single_images_alone():
    for only in (True, False):
        _, augmenter = augmenter_of(mosaic=0.5, mixup=1.0, mixup_mosaics_only=only)
        plans = [augmenter.draw(np.random.default_rng(seed), 3) for seed in range(100)]
        single = [plan.blended is not None for plan in plans if len(plan.scene) == 1]
        assert len(single) > 30
        assert not any(single) if only else all(single)
        assert all(plan.blended is not None for plan in plans if len(plan.scene) > 1)


def test_weights_of_mixup_vary_more_with_a_smaller_beta():
    spreads = []
    for beta in (32.0, 8.0):
        _, augmenter = augmenter_of(mixup=1.0, mixup_beta=beta)
        spreads.append(np.std([augmenter.draw(np.random.default_rng(seed), 3).blend for seed in range(300)]))
    # The standard deviation of Beta(b, b) is 1 / (2 sqrt(2 b + 1)).
    np.testing.assert_allclose(spreads, [0.062, 0.121], rtol=0.15)


def test_a_fixed_centre_joins_the_images_in_the_middle_of_the_canvas():
    _, augmenter = augmenter_of(mosaic_center=0.0, degrees=1.0)
    for seed in range(5):
        upper_left, _, _, lower_right = augmenter.draw(np.random.default_rng(seed), 3).scene.placements
        assert (upper_left.x + upper_left.width, lower_right.x) == (SIZE, SIZE)
        assert (upper_left.y + upper_left.height, lower_right.y) == (SIZE, SIZE)


def test_distortions_are_drawn_within_their_limits_and_not_at_all_when_they_are_off():
    rng = np.random.default_rng(0)
    config = AugmentConfig(degrees=10.0, shear=2.0, perspective=0.0005)
    drawn = [draw_distortion(rng, config) for _ in range(400)]
    for name, limit in ("angle", 10.0), ("shear_x", 2.0), ("shear_y", 2.0), ("tilt_x", 0.0005), ("tilt_y", 0.0005):
        values = [getattr(each, name) for each in drawn]
        assert -limit <= min(values) < -0.95 * limit and 0.95 * limit < max(values) <= limit
    state = rng.bit_generator.state
    assert draw_distortion(rng, AugmentConfig()) == Distortion()
    assert rng.bit_generator.state == state


def test_boxes_of_distorted_mosaics_cover_their_colors():
    split, augmenter = augmenter_of(degrees=15.0, shear=5.0, perspective=0.0003, copy_paste=0.5, mosaic_center=0.2)
    out, hits = np.empty((3, SIZE, SIZE), np.uint8), []
    for image in range(20):
        plan = augmenter.draw(np.random.default_rng(image), image)
        augmenter.paint(plan, lambda i: cv2.resize(split.read_image(i), tuple(map(int, augmenter.sizes[i]))), out)
        for _, cx, cy, w, h in augmenter.labels(plan) * SIZE:
            # Around the centre of a box, its object is not cut by the rotation.
            middle = out[:, int(cy - h / 6) : int(cy + h / 6) + 1, int(cx - w / 6) : int(cx + w / 6) + 1]
            hits.append((middle.max(axis=0) > 200).mean())
    assert len(hits) > 60
    assert np.mean(hits) > 0.95
