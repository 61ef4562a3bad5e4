from __future__ import annotations

import numpy as np
import pytest

from kubeyolo.config.schema import EvaluateConfig
from kubeyolo.errors import InputError
from kubeyolo.evaluation.predictor import Predictor
from kubeyolo.evaluation.split_evaluation import coco_rows, evaluate_split
from tests.evaluation.rectangles import RectangleRuntime, RectangleSplit, dataset_manifest, detect
from tests.export.tiny_detector import manifest


def predictor(batch_size: int = 4, **options) -> Predictor:
    return Predictor(manifest(), RectangleRuntime(), batch_size=batch_size, **options)


def test_boxes_come_back_in_pixels_of_each_image():
    split = RectangleSplit(9)
    found = detect(predictor(), [split.read_image(i) for i in range(9)])
    for i, rows in enumerate(found):
        assert rows.shape == (1, 6)
        x, y, w, h = split.index.box_xywh[i]
        np.testing.assert_allclose(rows[0, :4], [x, y, x + w, y + h], atol=2.5)
        assert rows[0, 5] == split.index.box_class[i]
        assert rows[0, 4] == pytest.approx(0.9 * 0.9933, abs=1e-3)


@pytest.mark.parametrize("width,height", [(300, 200), (203, 300), (1500, 1000)])
def test_boxes_of_oddly_padded_images_are_not_moved(width, height):
    rng = np.random.default_rng(width)
    images, expected = [], []
    for _ in range(60):
        x1, y1 = (rng.uniform(0.05, 0.3, 2) * (width, height)).astype(int)
        x2, y2 = (rng.uniform(0.5, 0.75, 2) * (width, height)).astype(int)
        image = np.zeros((height, width, 3), np.uint8)
        image[y1:y2, x1:x2, 0] = 255
        images.append(image)
        expected.append((x1, y1, x2, y2))
    found = np.concatenate(detect(predictor(), images))[:, :4]
    error = (found - expected).reshape(-1, 2, 2).mean((0, 1))
    pixel = max(width / 128, height / 96)
    assert np.abs(error).max() < 0.12 * pixel


def test_a_perfect_detector_reaches_ap50_of_1():
    split = RectangleSplit(11)
    result, detections = evaluate_split(predictor(), split, dataset_manifest(), EvaluateConfig())
    assert result.numbers["AP50"] == pytest.approx(1)
    assert result.numbers["AP"] > 0.8
    assert (result.images, result.boxes, result.split, result.runtime) == (11, 11, "val", "mindspore")
    assert result.image_size == (96, 128)
    assert [row["image_id"] for row in detections] == split.index.image_id.tolist()
    assert {row["category_id"] for row in detections} <= {3, 5, 9}
    assert sorted(split.read) == list(range(11))
    # Validation while training calls this function: the analysis of errors is no part of it.
    assert result.best_thresholds is None


def test_the_last_batch_is_padded_and_never_dropped():
    runtime = RectangleRuntime()
    split = RectangleSplit(10)
    result, detections = evaluate_split(
        Predictor(manifest(), runtime, batch_size=4), split, dataset_manifest(), EvaluateConfig()
    )
    assert runtime.shapes == [(4, 3, 96, 128)] * 3
    assert len(detections) == 10 and result.images == 10


def test_a_runtime_with_a_fixed_batch_size_is_fed_by_it():
    runtime = RectangleRuntime(batch_size=1)
    whole = Predictor(manifest(), runtime, batch_size=8)
    assert whole.batch_size == 1
    batch = np.zeros((3, 3, 96, 128), np.float32)
    assert [level.shape for level in whole.raw(batch)] == [(3, 3, 12, 16, 8), (3, 3, 6, 8, 8), (3, 3, 3, 4, 8)]
    assert whole.predictions(batch).shape == (3, 756, 8)
    assert runtime.shapes == [(1, 3, 96, 128)] * 6


def test_batch_size_does_not_change_results():
    split = RectangleSplit(7)
    results = [evaluate_split(predictor(size), split, dataset_manifest(), EvaluateConfig())[1] for size in (1, 3, 16)]
    assert results[0] == results[1] == results[2]


def test_a_split_without_images_gives_no_numbers():
    result, detections = evaluate_split(predictor(), RectangleSplit(0), dataset_manifest(), EvaluateConfig())
    assert detections == [] and set(result.numbers.values()) == {None}


def test_an_image_that_cannot_be_read_ends_the_evaluation():
    class Broken(RectangleSplit):
        def read_image(self, i):
            if i == 5:
                raise InputError("5.png: damaged")
            return super().read_image(i)

    with pytest.raises(InputError, match="5.png: damaged"):
        evaluate_split(predictor(2), Broken(40), dataset_manifest(), EvaluateConfig())


def test_other_image_sizes():
    larger = predictor(image_size=(128, 160))
    assert larger.predictions(np.zeros((1, 3, 128, 160), np.float32)).shape[1] == 3 * 320 + 3 * 80 + 3 * 20
    with pytest.raises(InputError, match="image size 100 x 96 is not a multiple of the largest stride, 32"):
        predictor(image_size=(100, 96))
    runtime = RectangleRuntime()
    runtime.image_size = (96, 128)
    with pytest.raises(InputError, match="image size 64 x 64: the onnx file .* exported for 96 x 128"):
        Predictor(manifest(), runtime, "onnx", image_size=(64, 64))


def test_other_classes_are_refused():
    other = dataset_manifest(classes=("disc", "cross", "square"))
    with pytest.raises(InputError, match="the model's class 'ring' is not in the data set, which has 'square' instead"):
        evaluate_split(predictor(), RectangleSplit(1), other, EvaluateConfig())


def test_rows_of_a_results_file():
    rows = np.array([[1.23456, 2, 11.23456, 22, 0.12345678, 1]], np.float32)
    assert coco_rows(rows, 42, (3, 5)) == [
        {"image_id": 42, "category_id": 5, "bbox": [1.235, 2.0, 10.0, 20.0], "score": 0.123457}
    ]


def test_numbers_of_a_results_file_are_rounded_as_by_round():
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.uniform(0, 4000, (2000, 4)), rng.uniform(0, 1, (2000, 2))], axis=1).astype(np.float32)
    rows[:500] = np.round(rows[:500] * 16) / 16 + 0.0625  # ties: .0625 has its half at the third decimal
    rows[:, 5] = 0
    for row, detection in zip(rows, coco_rows(rows, 1, (3,)), strict=True):
        x1, y1, x2, y2, score, _ = row
        expected = [round(float(value), 3) for value in (x1, y1, x2 - x1, y2 - y1)]
        assert (detection["bbox"], detection["score"]) == (expected, round(float(score), 6))
