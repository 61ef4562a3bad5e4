from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest

from kubeyolo.data.letterbox import letterbox, letterbox_geometry, stretch
from tests.golden import case_parameters, golden_folder, read_arrays, read_json

MULTIPLES = {"yolov5": 32, "scaledyolov4": 128}


def golden_cases():
    if not (golden_folder() / "letterbox" / "letterbox.json").is_file():
        return []
    images = read_json("letterbox", "letterbox.json")["images"]
    return [f"{image['file'].split('/')[-1]}-{number}" for image in images for number in range(len(image["results"]))]


def fitted(image, implementation, new_shape, auto, scaleup=True, scaleFill=False):
    """Letterbox with the settings of a golden case; return image, ratios (x, y) and paddings (x, y)."""
    size = new_shape if isinstance(new_shape, int) else tuple(new_shape)
    if scaleFill:
        image, ratios = stretch(image, size)
        return image, ratios, (0.0, 0.0)
    multiple_of = MULTIPLES[implementation] if auto else 0
    image, ratio, pads = letterbox(image, size, scale_up=scaleup, multiple_of=multiple_of)
    return image, (ratio, ratio), pads


def find_image(folder, name, sha256):
    for path in folder.rglob(name):
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() == sha256:
            return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    raise AssertionError(f"{folder}: no {name} with sha256 {sha256}")


@pytest.mark.parametrize("case", case_parameters(golden_cases(), "letterbox"))
def test_golden_letterbox(case, shared):
    assert case, f"{golden_folder()} holds no letterbox case"
    name, number = case.rsplit("-", 1)
    images = read_json("letterbox", "letterbox.json")["images"]
    golden = next(image for image in images if image["file"].endswith(f"/{name}"))
    expected = golden["results"][int(number)]
    image = find_image(shared / "data", name, golden["file_sha256"])
    assert hashlib.md5(image.tobytes()).hexdigest() == golden["decoded_bgr_md5"]
    result, ratios, pads = fitted(image, expected["impl"], **expected["args"])
    assert list(result.shape) == expected["out_shape"]
    assert list(ratios) == expected["ratio"]
    assert list(pads) == expected["pad"]
    assert hashlib.md5(result.tobytes()).hexdigest() == expected["md5"]


def small_cases():
    if not (golden_folder() / "letterbox" / "small.npz").is_file():
        return []
    return sorted(key.removesuffix("_in") for key in read_arrays("letterbox", "small.npz") if key.endswith("_in"))


@pytest.mark.parametrize("case", case_parameters(small_cases(), "letterbox"))
def test_golden_letterbox_of_small_arrays(case):
    assert case, f"{golden_folder()} holds no letterbox case"
    arrays, cases = read_arrays("letterbox", "small.npz"), read_json("letterbox", "letterbox.json")["small"]
    expected = next(small for small in cases if small["name"] == case)
    result, ratios, pads = fitted(arrays[f"{case}_in"], "yolov5", **expected["args"])
    assert list(ratios) == expected["ratio"]
    assert list(pads) == expected["pad"]
    np.testing.assert_array_equal(result, arrays[f"{case}_out"])


def test_odd_padding_puts_the_extra_pixel_right_and_below():
    place = letterbox_geometry(100, 99, 100)
    assert (place.top, place.bottom, place.pad_y) == (0, 1, 0.5)
    place = letterbox_geometry(95, 100, 100)
    assert (place.left, place.right, place.pad_x) == (2, 3, 2.5)


@pytest.mark.parametrize("width,height", [(1, 5000), (5000, 1), (3, 2)])
def test_extreme_shapes_fill_the_square(width, height):
    image, ratio, _ = letterbox(np.zeros((height, width, 3), np.uint8), 64)
    assert image.shape == (64, 64, 3)
    assert ratio == 64 / max(width, height)


def test_points_map_by_ratio_and_padding():
    image = np.zeros((50, 200, 3), np.uint8)
    image[20:30, 120:160] = 255
    result, ratio, (pad_x, pad_y) = letterbox(image, 100)
    assert (ratio, pad_x, pad_y) == (0.5, 0.0, 37.5)
    rows, columns = np.nonzero(result[:, :, 0] > 180)
    assert (columns.min(), columns.max() + 1) == (60, 80)
    assert rows.min() in (47, 48) and rows.max() + 1 in (52, 53)
    assert (result[0] == 114).all()
