from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubeyolo.data.letterbox import letterbox, letterbox_geometry
from tests.golden import case_parameters, golden_folder, read_arrays, read_json

MULTIPLES = {"yolov5": 32, "scaledyolov4": 128}
# Only stretched, or never enlarged: no image of a detector here is.
OTHER_FITS = {"scaleup": False, "scaleFill": True}

sides = st.integers(1, 8192)
input_sides = st.integers(1, 64).map(lambda number: 32 * number)


def is_letterbox(args):
    """Tell whether a golden case is a letterbox as this library has it; an unknown setting fails."""
    others = {key: value for key, value in args.items() if key not in ("new_shape", "auto")}
    assert others.items() <= OTHER_FITS.items(), f"unknown settings {args}"
    return not others


def golden_cases():
    if not (golden_folder() / "letterbox" / "letterbox.json").is_file():
        return []
    images = read_json("letterbox", "letterbox.json")["images"]
    return [
        f"{image['file'].split('/')[-1]}-{number}"
        for image in images
        for number, result in enumerate(image["results"])
        if is_letterbox(result["args"])
    ]


def cropped(image, place, multiple):
    """Cut a letterboxed image so that each padding is what is left over by ``multiple`` pixels."""
    width, height = (place.left + place.right) % multiple, (place.top + place.bottom) % multiple
    left, top = place.left - width // 2, place.top - height // 2
    return image[top : top + place.height + height, left : left + place.width + width]


def check_golden(image, implementation, expected):
    """Compare with a golden case: its one ratio is that before the sides are rounded, its paddings have halves."""
    new_shape, auto = expected["args"]["new_shape"], expected["args"]["auto"]
    result, place = letterbox(image, new_shape if isinstance(new_shape, int) else tuple(new_shape))
    pads = [(place.left + place.right) / 2, (place.top + place.bottom) / 2]
    if auto:
        multiple = MULTIPLES[implementation]
        result, pads = cropped(result, place, multiple), [2 * pad % multiple / 2 for pad in pads]
    height, width = image.shape[:2]
    resized = np.multiply(expected["ratio"], (width, height))
    assert np.abs(resized - (place.ratio_x * width, place.ratio_y * height)).max() <= 0.5
    assert pads == expected["pad"]
    assert list(result.shape) == expected["out_shape"]
    return np.ascontiguousarray(result)


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
    result = check_golden(image, expected["impl"], expected)
    assert hashlib.md5(result.tobytes()).hexdigest() == expected["md5"]


def small_cases():
    if not (golden_folder() / "letterbox" / "small.npz").is_file():
        return []
    names = sorted(key.removesuffix("_in") for key in read_arrays("letterbox", "small.npz") if key.endswith("_in"))
    args = {small["name"]: small["args"] for small in read_json("letterbox", "letterbox.json")["small"]}
    return [name for name in names if is_letterbox(args[name])]


@pytest.mark.parametrize("case", case_parameters(small_cases(), "letterbox"))
def test_golden_letterbox_of_small_arrays(case):
    assert case, f"{golden_folder()} holds no letterbox case"
    arrays, cases = read_arrays("letterbox", "small.npz"), read_json("letterbox", "letterbox.json")["small"]
    expected = next(small for small in cases if small["name"] == case)
    np.testing.assert_array_equal(check_golden(arrays[f"{case}_in"], "yolov5", expected), arrays[f"{case}_out"])


def test_odd_padding_puts_the_extra_pixel_right_and_below():
    place = letterbox_geometry(100, 99, 100)
    assert (place.top, place.bottom) == (0, 1)
    place = letterbox_geometry(95, 100, 100)
    assert (place.left, place.right) == (2, 3)


@pytest.mark.parametrize("width,height", [(1, 5000), (5000, 1), (3, 2)])
def test_extreme_shapes_fill_the_square(width, height):
    image, place = letterbox(np.zeros((height, width, 3), np.uint8), 64)
    assert image.shape == (64, 64, 3)
    assert max(place.width, place.height) == 64
    assert min(place.width, place.height) == max(1, round(64 * min(width, height) / max(width, height)))


def test_each_axis_has_the_ratio_of_its_whole_pixels():
    place = letterbox_geometry(3000, 2000, 640)
    assert (place.width, place.height, place.left, place.top, place.bottom) == (640, 427, 0, 106, 107)
    assert (place.ratio_x, place.ratio_y) == (640 / 3000, 427 / 2000)
    np.testing.assert_array_equal(place.forward([0, 0, 3000, 2000]), [0, 106, 640, 533])
    np.testing.assert_array_equal(place.back([[0, 106], [640, 533]]), [[0, 0], [3000, 2000]])


@given(width=sides, height=sides, size=st.one_of(input_sides, st.tuples(input_sides, input_sides)), data=st.data())
@settings(max_examples=200)
def test_boxes_go_there_and_come_back(width, height, size, data):
    place = letterbox_geometry(width, height, size)
    input_height, input_width = (size, size) if isinstance(size, int) else size
    assert place.left + place.width + place.right == input_width
    assert place.top + place.height + place.bottom == input_height
    assert 0 <= place.right - place.left <= 1 and 0 <= place.bottom - place.top <= 1
    assert place.width == input_width or place.height == input_height
    edges = (place.left, place.top, place.left + place.width, place.top + place.height)
    np.testing.assert_allclose(place.forward([0, 0, width, height]), edges, rtol=0, atol=1e-9)
    shares = data.draw(st.lists(st.floats(0, 1), min_size=4, max_size=4))
    boxes = np.array([shares]) * (width, height, width, height)
    np.testing.assert_allclose(place.back(place.forward(boxes)), boxes, rtol=0, atol=0.01)
    points = boxes.reshape(2, 2)
    np.testing.assert_array_equal(place.forward(points), place.forward(boxes).reshape(2, 2))
    np.testing.assert_array_equal(place.back(points), place.back(boxes).reshape(2, 2))


def image_of_rectangles(width, height, count):
    """Return an image with ``count`` x ``count`` white rectangles on black, and their corners (count, count, 4)."""
    rng = np.random.default_rng(width)
    image = np.zeros((height, width, 3), np.uint8)
    corners = np.zeros((count, count, 4), int)
    cell = np.array([width / count, height / count])
    for row in range(count):
        for column in range(count):
            low = (rng.uniform(0.1, 0.3, 2) + (column, row)) * cell
            high = (rng.uniform(0.7, 0.9, 2) + (column, row)) * cell
            corners[row, column] = x1, y1, x2, y2 = np.concatenate([low, high]).round().astype(int)
            image[y1:y2, x1:x2] = 255
    return image, corners


@pytest.mark.parametrize(
    "width,height,size",
    [
        (3000, 2000, 640),
        (2000, 3000, 640),
        (5760, 3843, 640),
        (720, 480, 640),
        (300, 200, 640),
        (1999, 1003, (384, 672)),
    ],
)
def test_painted_edges_lie_where_the_geometry_puts_them(width, height, size):
    count = 8
    image, corners = image_of_rectangles(width, height, count)
    result, place = letterbox(image, size)
    assert (place.right - place.left) + (place.bottom - place.top) == 1, "one of the paddings must be odd"
    borders = place.forward([(column * width / count, row * height / count) for row in range(9) for column in range(9)])
    borders = borders.reshape(9, 9, 2).round().astype(int)
    found = np.zeros_like(corners)
    for row in range(count):
        for column in range(count):
            (left, top), (right, bottom) = borders[row, column], borders[row + 1, column + 1]
            rows, columns = np.nonzero(result[top:bottom, left:right, 0] > 127)
            found[row, column] = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            found[row, column] += (left, top, left, top)
    error = found - place.forward(corners)
    assert np.abs(error).max() < 1
    assert np.abs(error.mean((0, 1))).max() < 0.12
    assert (result[0] == 114).all() or (result[:, 0] == 114).all()


@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    fill=st.integers(0, 255),
)
@settings(max_examples=150)
def test_the_picture_lies_exactly_where_the_geometry_says_and_all_else_is_padding(width, height, size, fill):
    # Every value of the picture differs from that of the padding, and interpolation stays between the values.
    value = 200 if fill < 128 else 50
    image = np.full((height, width, 3), value, np.uint8)
    before = image.copy()
    result, place = letterbox(image, size, fill)
    assert result.shape == (*size, 3) and result.dtype == np.uint8
    expected = np.full((*size, 3), fill, np.uint8)
    expected[place.top : place.top + place.height, place.left : place.left + place.width] = value
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(image, before)


@given(width=sides, height=sides, size=st.tuples(st.integers(1, 2048), st.integers(1, 2048)))
@settings(max_examples=200)
def test_an_image_is_as_large_as_fits_and_keeps_its_shape_to_half_a_pixel(width, height, size):
    place = letterbox_geometry(width, height, size)
    ratio = min(size[0] / height, size[1] / width)
    assert 1 <= place.width <= size[1] and 1 <= place.height <= size[0]
    assert min(place.left, place.top, place.right, place.bottom) >= 0
    for resized, side in ((place.width, width), (place.height, height)):
        assert abs(resized - side * ratio) <= 0.5 + 1e-9 or (resized == 1 and side * ratio < 0.5)
    turned = letterbox_geometry(height, width, size[::-1])
    assert (turned.width, turned.height, turned.left, turned.top) == (
        place.height,
        place.width,
        place.top,
        place.left,
    )
