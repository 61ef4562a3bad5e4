from __future__ import annotations

import re

import numpy as np
import pytest

from kubeyolo.evaluation import nms
from kubeyolo.evaluation.nms import BLOCK, MAX_CANDIDATES, Candidates, non_max_suppression, overlapping
from tests import golden
from tests.evaluation.plain_nms import plain_nms

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


def random_predictions(seed, boxes, classes):
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0, 300, (boxes, 2))
    size = rng.uniform(20, 90, (boxes, 2))
    return np.concatenate([centre, size, rng.uniform(0, 1, (boxes, 1 + classes))], axis=1).astype(np.float32)


def test_blocks_give_the_same_as_one_by_one():
    predictions = random_predictions(5, 300, 3)
    got = non_max_suppression(predictions[None], conf_threshold=0.05, iou_threshold=0.5, max_det=10**6)[0]
    assert len(got) > BLOCK
    np.testing.assert_array_equal(got, plain_nms(predictions, 0.05, 0.5))


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
    left, right = (
        Candidates(np.array([box], np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
        for box in ([0, 0, 10, 10], [10, 0, 20, 10])
    )
    assert [len(numbers) for numbers in overlapping(left, right, 0.0, distance=False)] == [0, 0]


def crowded_predictions(seed, boxes, classes, places):
    """Return predictions in clusters around a few places, with equal scores among them and many low scores."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(30, 300, (places, 4))[rng.integers(0, places, boxes)]
    box = place * np.exp(rng.normal(0, 0.1, (boxes, 4)))
    scores = np.round(10 ** rng.uniform(-4, 0, (boxes, 1 + classes)), 3)
    return np.concatenate([box, scores], axis=1).astype(np.float32)


@pytest.mark.parametrize("kind", ["greedy", "diou"])
@pytest.mark.parametrize("multi_label", [True, False])
@pytest.mark.parametrize(
    "predictions",
    [
        pytest.param(crowded_predictions(1, 3000, 1, 8), id="one class"),
        pytest.param(crowded_predictions(2, 900, 3, 12), id="three classes"),
        pytest.param(crowded_predictions(3, 150, 40, 4), id="forty classes"),
        pytest.param(random_predictions(4, 1500, 2), id="everywhere"),
    ],
)
def test_suppression_equals_that_of_one_candidate_at_a_time_to_the_last_bit(predictions, multi_label, kind):
    every = plain_nms(predictions, 0.001, 0.65, multi_label=multi_label, kind=kind)
    for max_det in (10**6, 300, 7):
        got = non_max_suppression([predictions], 0.001, 0.65, max_det, multi_label, kind)[0]
        assert got.dtype == np.float32 and got.tobytes() == every[:max_det].tobytes()


@pytest.mark.parametrize("limit", [1, 1000, 2500])
def test_the_best_candidates_of_all_tiers_are_compared(monkeypatch, limit):
    predictions = crowded_predictions(5, 1200, 5, 40)
    monkeypatch.setattr(nms, "MAX_CANDIDATES", limit)
    expected = plain_nms(predictions, 0.001, 0.65, candidates=limit)
    got = non_max_suppression([predictions], max_det=10**6)[0]
    assert got.tobytes() == expected.tobytes()


def test_diou_keeps_a_neighbour_with_a_distant_centre():
    # Two boxes of 100 x 100 whose centres are 20 apart: IoU 2/3, and d²/c² = 400 / (120² + 100²) = .0164.
    boxes = [[50, 50, 100, 100, 1, 0.9], [70, 50, 100, 100, 1, 0.8]]
    predictions = np.array(boxes, np.float32)
    kept = {kind: len(non_max_suppression([predictions], 0.1, 0.655, kind=kind)[0]) for kind in ("greedy", "diou")}
    assert kept == {"greedy": 1, "diou": 2}
    assert len(non_max_suppression([predictions], 0.1, 0.65, kind="diou")[0]) == 1
