from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kubeyolo.bundle import Bundle
from kubeyolo.evaluation.predictor import Thresholds, load_predictor
from kubeyolo.prediction.stream import Prediction, predict_images
from kubeyolo.prediction.windows import Slicing, Window, merge
from tests.prediction.pictures import picture
from tests.prediction.test_stream import Drawn

LEFT, RIGHT, WHOLE = Window(0, 0, 100, 100), Window(60, 0, 100, 100), Window(0, 0, 160, 100)


def rows(*boxes: tuple[float, ...]) -> np.ndarray:
    return np.array(boxes, np.float32).reshape(-1, 6)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(64, 700), st.sampled_from([0.0, 0.2, 0.5, 0.9]))
def test_windows_cover_the_image_and_overlap(width: int, height: int, side: int, overlap: float) -> None:
    *parts, whole = Slicing(side, overlap).windows(width, height)
    assert whole == Window(0, 0, width, height)
    if width <= side and height <= side:
        assert not parts
        return
    for starts, length in (({part.left for part in parts}, width), ({part.top for part in parts}, height)):
        ordered, extent = sorted(starts), min(side, length)
        assert ordered[0] == 0 and ordered[-1] + extent == length
        steps = np.diff(ordered)
        assert (steps <= side - overlap * side + 1).all() and (steps > 0).all()
    assert {(part.width, part.height) for part in parts} == {(min(side, width), min(side, height))}
    assert len(parts) == len({(part.left, part.top) for part in parts})


def test_an_object_of_two_windows_has_one_box_the_one_with_the_higher_score() -> None:
    found = [(LEFT, rows((65, 10, 90, 40, 0.8, 0))), (RIGHT, rows((66, 10, 90, 41, 0.9, 0), (64, 11, 90, 40, 0.7, 1)))]
    merged = merge(found, 160, 100, 0.45, 300)
    np.testing.assert_allclose(merged, rows((66, 10, 90, 41, 0.9, 0), (64, 11, 90, 40, 0.7, 1)))
    assert len(merge(found, 160, 100, 0.45, 1)) == 1


def test_a_box_that_a_window_cuts_off_gives_way_to_the_whole_box_whatever_its_score() -> None:
    cut, whole = (80, 10, 100, 40, 0.95, 0), (80, 10, 130, 40, 0.6, 0)
    np.testing.assert_allclose(merge([(LEFT, rows(cut)), (RIGHT, rows(whole))], 160, 100, 0.45, 300), rows(whole))
    # At the edge of the image nothing is cut off.
    touching = (0, 10, 20, 40, 0.95, 0)
    np.testing.assert_allclose(merge([(LEFT, rows(touching))], 160, 100, 0.45, 300), rows(touching))
    # A box of another class, and a part that nothing covers, stay.
    other = (*cut[:5], 1)
    kept = merge([(LEFT, rows(cut, other)), (RIGHT, rows())], 160, 100, 0.45, 300)
    np.testing.assert_allclose(kept, rows(cut, other))


def test_an_object_larger_than_a_window_is_found_in_the_whole_image() -> None:
    parts = [(LEFT, rows((10, 10, 100, 90, 0.9, 0))), (RIGHT, rows((60, 10, 150, 90, 0.9, 0)))]
    found = merge([*parts, (WHOLE, rows((10, 10, 150, 90, 0.5, 0)))], 160, 100, 0.45, 300)
    np.testing.assert_allclose(found, rows((10, 10, 150, 90, 0.5, 0)))


def test_small_objects_of_a_large_image_are_found_exactly(bundle: Bundle) -> None:
    areas = {"red": (110, 30, 140, 60), "green": (300, 201, 317, 232), "blue": (5, 200, 250, 230)}
    images: list[Image.Image] = [picture(320, 240, **areas), picture(100, 100, red=(20, 20, 40, 50))]
    predictor = load_predictor(bundle, "onnx", batch_size=1)
    sliced = Slicing(128, 0.3)
    large, small = predict_images(predictor, [Drawn.of(each) for each in images], Thresholds(), slicing=sliced)
    assert isinstance(large, Prediction) and isinstance(small, Prediction)
    found = {int(row[5]): row[:4] for row in large.rows}
    assert len(large.rows) == 3
    np.testing.assert_allclose(found[0], areas["red"], atol=1e-3)
    np.testing.assert_allclose(found[1], areas["green"], atol=1e-3)
    # Wider than a window: the box of the whole image, which is seen at 128 pixels.
    np.testing.assert_allclose(found[2], areas["blue"], atol=320 / 128)
    np.testing.assert_allclose(small.rows[:, :4], [[20, 20, 40, 50]], atol=1)
