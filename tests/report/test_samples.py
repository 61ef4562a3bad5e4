"""Samples: scaled, encoded, boxes clipped to the image, labels that do not cover each other."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest

from kubeyolo.report.samples import Box, SampleImage, class_colors, draw, draw_within_budget


def picture(width: int, height: int, *boxes: Box) -> SampleImage:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, :, 0] = 250
    return SampleImage(image, list(boxes), "one.jpg")


def test_large_images_are_scaled_to_480_pixels_with_their_boxes() -> None:
    drawn = draw(picture(1920, 1080, Box((192, 108, 960, 540), "cat")), {"cat": "#ffffff"})
    assert (drawn.width, drawn.height) == (480, 270)
    box = drawn.boxes[0]
    assert (box.x, box.y, box.width, box.height) == (48, 27, 192, 108)
    data = np.frombuffer(base64.b64decode(drawn.source.partition(",")[2]), np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded.shape == (270, 480, 3)
    assert decoded[100, 100, 2] > 240 and decoded[100, 100, 0] < 10  # red stays red


def test_small_images_keep_their_size() -> None:
    drawn = draw(picture(64, 48), {})
    assert (drawn.width, drawn.height, drawn.alt) == (64, 48, "one.jpg: no boxes")


@pytest.mark.parametrize(
    ("xyxy", "inside"),
    [
        ((-50, -50, 50, 50), (0, 0, 50, 50)),
        ((80, 60, 300, 300), (80, 60, 20, 20)),
        ((10, 10, 10, 10), (10, 10, 1, 1)),
        ((500, 500, 600, 600), (99, 79, 1, 1)),
        ((50, 50, 20, 20), (20, 20, 30, 30)),
    ],
)
def test_boxes_stay_on_the_image(xyxy: tuple[float, ...], inside: tuple[float, ...]) -> None:
    box = draw(picture(100, 80, Box(xyxy, "cat")), {}).boxes[0]  # type: ignore[arg-type]
    assert (box.x, box.y, box.width, box.height) == inside


def test_labels_do_not_cover_one_another() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 300, (60, 2))
    boxes = [Box((x, y, x + 90, y + 70), "some class", score=0.5) for x, y in corners]
    drawn = draw(picture(400, 400, *boxes), {})
    shown = [box for box in drawn.boxes if box.chip_shown]
    assert 5 <= len(shown) < 60
    for i, one in enumerate(shown):
        assert one.chip_x >= 0 and one.chip_x + one.chip_width <= 400
        for other in shown[i + 1 :]:
            apart_x = abs(one.chip_x - other.chip_x) >= min(one.chip_width, other.chip_width) - 1e-6
            assert apart_x or abs(one.chip_y - other.chip_y) >= 17 - 1e-6


def test_few_classes_keep_their_colours_and_many_share_them_by_frequency() -> None:
    few = picture(50, 50, Box((0, 0, 9, 9), "b"))
    assert class_colors(["a", "b"], [few]) == {"b": class_colors(["a", "b"], [picture(9, 9, *few.boxes)])["b"]}
    names = [f"class {number}" for number in range(30)]
    boxes = [Box((0, 0, 9, 9), name) for name in names] + [Box((0, 0, 9, 9), "class 29")] * 3
    colors = class_colors(names, [picture(50, 50, *boxes)])
    assert next(iter(colors)) == "class 29"
    assert len(set(list(colors.values())[:10])) == 10


def test_samples_end_at_the_budget_but_there_is_at_least_one() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), np.uint8)
    pairs = [(SampleImage(noise, [], "a"), SampleImage(noise, [], "b"))] * 5
    size = sum(len(sample.source) for sample in draw_within_budget(pairs, {}, 1)[0])
    assert len(draw_within_budget(pairs, {}, 1)) == 1
    assert len(draw_within_budget(pairs, {}, 2 * size + 1)) == 2
