from __future__ import annotations

import colorsys

import numpy as np

from kubeyolo.config.training_schema import AugmentConfig
from kubeyolo.data.augment import Augmenter, flip_boxes, jitter_hsv
from kubeyolo.data.labels import BoxTable
from kubeyolo.data.letterbox import letterbox, letterbox_geometry, resize
from kubeyolo.data.mosaic import MIN_SIDE
from tests.data.rendered_split import RenderedSplit, split_index

SIZE = 128
STILL = AugmentConfig(mosaic=0, hsv_h=0, hsv_s=0, hsv_v=0, translate=0, scale=0, fliplr=0, flipud=0)


def augmenter_of(split, **changes):
    config = STILL.model_copy(update=changes)
    return Augmenter(config, BoxTable(split.index), split.index.width, split.index.height, SIZE)


def painted(split, augmenter, plan):
    out = np.empty((3, SIZE, SIZE), np.uint8)
    augmenter.paint(plan, lambda image: letterbox_tile(split, augmenter, image), out)
    return out


def plain_plan(augmenter, image):
    """Return the letterboxed image without any change."""
    still = Augmenter(STILL, augmenter.boxes, *np.transpose(augmenter.sizes), augmenter.image_size)
    return still.draw(np.random.default_rng(0), image)


def letterbox_tile(split, augmenter, image):
    return resize(split.read_image(image), *map(int, augmenter.sizes[image]))


def test_plain_samples_are_the_letterboxed_images_with_all_boxes_but_crowds():
    split = RenderedSplit()
    augmenter = augmenter_of(split, mosaic=1.0, hsv_v=0.9)
    for image in range(len(split.index)):
        plan = plain_plan(augmenter, image)
        expected, place = letterbox(split.read_image(image), SIZE)
        np.testing.assert_array_equal(painted(split, augmenter, plan), expected.transpose(2, 0, 1))
        boxes = split.index.boxes_of(image)
        kept = ~split.index.box_crowd[boxes]
        xywh = split.index.box_xywh[boxes][kept]
        labels = augmenter.labels(plan)
        assert list(labels[:, 0]) == list(split.index.box_class[boxes][kept])
        corners = place.forward(np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)) / SIZE
        np.testing.assert_allclose(corners_of(labels), corners, rtol=0, atol=1e-6)


def corners_of(labels):
    """Return x1, y1, x2, y2 of labels class, cx, cy, w, h."""
    centers, sides = labels[:, 1:3].astype(float), labels[:, 3:].astype(float)
    return np.concatenate([centers - sides / 2, centers + sides / 2], axis=1)


def test_labels_of_plain_samples_follow_the_letterbox_for_photographs_of_any_size():
    rng = np.random.default_rng(1)
    sizes = [(5760, 3843), (3000, 2000), (2000, 3000), (1, 8192), *rng.integers(1, 8192, (60, 2)).tolist()]
    for size in (416, 640):
        shares = np.sort(rng.uniform(0, 1, (len(sizes), 2, 2)), axis=1).reshape(-1, 4)
        corners = shares * np.tile(sizes, 2)
        boxes = [(i, 0, x1, y1, x2 - x1, y2 - y1, False) for i, (x1, y1, x2, y2) in enumerate(corners.tolist())]
        index = split_index(sizes, boxes)
        augmenter = Augmenter(STILL, BoxTable(index), index.width, index.height, size)
        for image, (width, height) in enumerate(sizes):
            expected = letterbox_geometry(width, height, size).forward(corners[image])
            shorter, longer = sorted(expected[2:] - expected[:2])
            seen = [expected / size] if shorter > MIN_SIDE and longer < STILL.max_aspect * shorter else np.zeros((0, 4))
            labels = augmenter.labels(plain_plan(augmenter, image))
            np.testing.assert_allclose(corners_of(labels), seen, rtol=0, atol=1e-6)


def test_without_any_change_a_drawn_sample_is_the_plain_one():
    split = RenderedSplit()
    augmenter = augmenter_of(split)
    drawn = augmenter.draw(np.random.default_rng(0), 3)
    np.testing.assert_array_equal(painted(split, augmenter, drawn), painted(split, augmenter, plain_plan(augmenter, 3)))


def test_flips_mirror_pixels_and_boxes():
    split = RenderedSplit()
    plain = augmenter_of(split)
    still = painted(split, plain, plain_plan(plain, 5))
    flipped = augmenter_of(split, fliplr=1.0, flipud=1.0)
    plan = flipped.draw(np.random.default_rng(0), 5)
    np.testing.assert_array_equal(painted(split, flipped, plan), still[:, ::-1, ::-1])
    boxes = np.array([[1, 0.25, 0.1, 0.5, 0.2]], np.float32)
    np.testing.assert_allclose(flip_boxes(boxes.copy(), True, False), [[1, 0.75, 0.1, 0.5, 0.2]])
    np.testing.assert_allclose(flip_boxes(boxes.copy(), False, True), [[1, 0.25, 0.9, 0.5, 0.2]])


def test_hsv_factors_act_on_hue_saturation_and_value():
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    same = image.copy()
    jitter_hsv(same, (1.0, 1.0, 1.0))
    assert np.abs(same.astype(int) - image).mean() < 2.0
    color = np.full((1, 1, 3), (200, 100, 50), np.uint8)
    jitter_hsv(color, (1.5, 0.8, 0.5))
    h, s, v = colorsys.rgb_to_hsv(200 / 255, 100 / 255, 50 / 255)
    expected = np.array(colorsys.hsv_to_rgb(h * 1.5, s * 0.8, v * 0.5)) * 255
    np.testing.assert_allclose(color[0, 0], expected, atol=3)
    bright = np.full((1, 1, 3), (200, 200, 200), np.uint8)
    jitter_hsv(bright, (1.0, 1.0, 1.6))
    assert (bright == 255).all()


def test_mixup_blends_two_scenes_and_keeps_the_boxes_of_both():
    split = RenderedSplit(most_boxes=6)
    augmenter = augmenter_of(split, mixup=1.0)
    plan = augmenter.draw(np.random.default_rng(1), 1)
    assert plan.blended is not None
    assert 0.2 < plan.blend < 0.8
    first, second = (
        painted(split, augmenter, plain_plan(augmenter, scene[0].placement.image)).astype(float)
        for scene in (plan.scene, plan.blended)
    )
    mixed = plan.blend * first + (1 - plan.blend) * second
    np.testing.assert_allclose(painted(split, augmenter, plan), mixed, atol=1)
    counts = [len(augmenter.labels(plain_plan(augmenter, s[0].placement.image))) for s in (plan.scene, plan.blended)]
    assert len(augmenter.labels(plan)) == sum(counts) > max(counts)


def test_mosaic_boxes_cover_their_colors():
    split = RenderedSplit(images=20, seed=2)
    split.index.box_crowd[:] = False
    augmenter = augmenter_of(split, mosaic=1.0, scale=0.5, translate=0.1, fliplr=0.5)
    hits, joined = [], 0
    for image in range(20):
        plan = augmenter.draw(np.random.default_rng(image), image)
        joined += len(plan.scene) > 1
        pixels = painted(split, augmenter, plan)
        for _, cx, cy, w, h in augmenter.labels(plan) * [1, SIZE, SIZE, SIZE, SIZE]:
            inside = pixels[:, int(cy - h / 2 + 1) : int(cy + h / 2), int(cx - w / 2 + 1) : int(cx + w / 2)]
            if inside.size:
                # All box colours are brighter than background and grey.
                hits.append((inside.max(axis=0) > 200).mean())
    assert joined > 15
    assert len(hits) > 20
    assert min(hits) > 0.9


def test_closing_the_mosaic_leaves_out_mixup_too():
    augmenter = augmenter_of(RenderedSplit(), mosaic=1.0, mixup=1.0)
    plan = augmenter.draw(np.random.default_rng(0), 0, mosaic=False)
    assert plan.blended is None
    assert len(plan.scene) == 1
