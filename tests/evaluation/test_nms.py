from __future__ import annotations

import re

import numpy as np
import pytest

from kubeyolo.evaluation import nms
from kubeyolo.evaluation.nms import BLOCK, MAX_CANDIDATES, non_max_suppression, overlapping
from tests import golden

SETTING = re.compile(r"ml(\d)_ag(\d)_c([\d.]+)_i([\d.]+)_img(\d+)")


@pytest.mark.parametrize("case", golden.case_parameters(golden.array_files("nms"), "nms"))
def test_golden_rows_and_order(case):
    assert case, f"{golden.golden_folder()} holds no nms case"
    meta, arrays = golden.read_json("nms", "meta.json"), golden.read_arrays("nms", f"{case}.npz")
    assert case in meta["sets"], f"unknown golden case nms/{case}"
    limits = {**meta, **meta["sets"][case]}
    assert limits["max_nms"] == MAX_CANDIDATES
    settings = {key: match for key in arrays if (match := SETTING.fullmatch(key))}
    assert settings.keys() == arrays.keys() - {"preds"} and settings
    for key, match in settings.items():
        multi_label, agnostic, conf, iou, image = match.groups()
        if agnostic == "1":
            continue  # suppression across classes, which kubeyolo does not have
        got = non_max_suppression(
            arrays["preds"],
            conf_threshold=float(conf),
            iou_threshold=float(iou),
            max_det=limits["max_det"],
            multi_label=multi_label == "1",
        )[int(image)]
        assert got.shape == arrays[key].shape, key
        np.testing.assert_allclose(got, arrays[key], atol=1e-4, err_msg=key)


def naive(predictions, conf, iou):
    rows = []
    for cx, cy, w, h, obj, *scores in predictions.astype(np.float64):
        for label, score in enumerate(scores):
            if obj > conf and obj * score > conf:
                rows.append((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, obj * score, label))
    rows.sort(key=lambda row: -row[4])
    kept = []
    for row in rows:
        box = np.array(row[:4])
        for other in kept:
            if other[5] != row[5]:
                continue
            sides = np.clip(np.minimum(box[2:], other[2:4]) - np.maximum(box[:2], other[:2]), 0, None)
            inter = sides.prod()
            union = np.prod(box[2:] - box[:2]) + np.prod(np.subtract(other[2:4], other[:2])) - inter
            if inter / union > iou:
                break
        else:
            kept.append(row)
    return np.array(kept)


def random_predictions(seed, boxes, classes):
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0, 300, (boxes, 2))
    size = rng.uniform(20, 90, (boxes, 2))
    return np.concatenate([centre, size, rng.uniform(0, 1, (boxes, 1 + classes))], axis=1).astype(np.float32)


def test_blocks_give_the_same_as_one_by_one():
    predictions = random_predictions(5, 300, 3)
    got = non_max_suppression(predictions[None], conf_threshold=0.05, iou_threshold=0.5, max_det=10**6)[0]
    expected = naive(predictions, 0.05, 0.5)
    assert len(expected) > BLOCK
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_max_det_keeps_the_best():
    predictions = random_predictions(6, 900, 2)
    every = non_max_suppression(predictions[None], max_det=10**6)[0]
    best = non_max_suppression(predictions[None], max_det=37)[0]
    assert best.shape == (37, 6)
    np.testing.assert_array_equal(best, every[:37])


def test_boxes_of_other_classes_stay_even_at_large_coordinates():
    box = [100000.0, 100000.0, 10.0, 10.0]
    predictions = np.array([[*box, 1, 0.9, 0.0], [*box, 1, 0.0, 0.8]], np.float32)[None]
    assert non_max_suppression(predictions, conf_threshold=0.1)[0][:, 5].tolist() == [0, 1]


def test_nothing_above_the_threshold_gives_empty_rows():
    predictions = np.zeros((2, 50, 8), np.float32)
    for multi_label in (True, False):
        assert [rows.shape for rows in non_max_suppression(predictions, multi_label=multi_label)] == [(0, 6), (0, 6)]


def test_nan_and_infinite_predictions_do_not_spread():
    predictions = random_predictions(7, 40, 2)
    clean = non_max_suppression(predictions[None], conf_threshold=0.1)[0]
    broken = np.concatenate([predictions, np.full((3, 7), np.nan, np.float32)])
    np.testing.assert_array_equal(non_max_suppression(broken[None], conf_threshold=0.1)[0], clean)
    broken[-1] = [50, 50, np.inf, np.inf, 0.11, 1.0, 0.0]
    assert len(non_max_suppression(broken[None], conf_threshold=0.1)[0]) == len(clean) + 1


def test_candidates_are_bounded(monkeypatch):
    predictions = random_predictions(8, 100, 20)
    predictions[:, 4] = 1.0
    every = non_max_suppression(predictions[None], max_det=10**6)[0]
    monkeypatch.setattr(nms, "MAX_CANDIDATES", 100)
    limited = non_max_suppression(predictions[None], max_det=10**6)[0]
    assert len(limited) <= 100 < len(every)
    np.testing.assert_array_equal(limited, every[: len(limited)])


def test_overlap_of_touching_boxes_is_none():
    left = np.array([[0, 0, 10, 10]], np.float32)
    right = np.array([[10, 0, 20, 10]], np.float32)
    group = np.zeros(1, np.int64)
    assert not overlapping(left, group, right, group, 0.0).any()
