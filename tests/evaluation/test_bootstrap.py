"""Intervals of AP: what they cover, what they decide, and what they are for very small sets."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kubeyolo.evaluation import bootstrap
from kubeyolo.evaluation.bootstrap import class_samples, resampled, stored_samples
from kubeyolo.evaluation.coco_matches import SplitMatches, match_boxes
from kubeyolo.evaluation.engines import Boxes
from kubeyolo.evaluation.intervals import LEAST_IMAGES, RESAMPLES, Resamples, resamples_in
from kubeyolo.evaluation.limits import check_numbers
from kubeyolo.evaluation.results import EvaluationResult
from tests.evaluation.simulated import DrawnImages

TRUE_AP, TRUE_LOSS = 0.5187, 0.0344
"""AP of models that find .85 of the objects on 80,000 images, and what it loses if it finds .79."""


def few_samples(matches: SplitMatches) -> Resamples:
    return stored_samples(matches, class_samples(matches, 200))


def test_intervals_cover_the_truth_in_90_to_99_of_100_sets() -> None:
    ap, loss = 0, 0
    for seed in range(100):
        drawn = DrawnImages(seed, 100)
        good = few_samples(drawn.matches())
        worse = few_samples(drawn.matches(0.79))
        interval, lost = good.interval("AP"), worse.loss_interval(good)
        assert interval and lost and lost.high - lost.low < (interval.high - interval.low) * 0.8
        ap += interval.low <= TRUE_AP <= interval.high
        loss += lost.low <= TRUE_LOSS <= lost.high
    assert 90 <= ap <= 99, ap
    assert 90 <= loss <= 99, loss


def verdicts(quality: float, noise: int, judges: tuple[str, ...], max_drop: float, images: int = 300) -> list[bool]:
    """Return whether a model passes a limit on its loss against a model that finds .85, by each rule."""
    drawn = DrawnImages(7, images)
    both = (resampled(drawn.matches(quality, noise)), resampled(drawn.matches()))
    model, baseline = ({"AP": float(each.array("AP")[0])} for each in both)
    return [check_numbers(model, baseline, None, max_drop, judge, both).passed for judge in judges]


JUDGES = ("point", "interval", "strict")


def test_a_loss_of_5_points_on_300_images_fails_by_every_rule() -> None:
    assert verdicts(0.763, 0, JUDGES, 1.0) == [False, False, False]


@pytest.mark.parametrize("noise", [1, 2, 3, 4])
def test_a_difference_of_noise_does_not_fail_by_the_interval(noise: int) -> None:
    assert verdicts(0.85, noise, ("interval",), 0.0) == [True]
    assert verdicts(0.85, noise, JUDGES, 1.0) == [True, True, True]


def test_a_small_set_cannot_prove_a_small_loss() -> None:
    """On 40 images a loss of 3.4 points may be one of less than 3: only the strict rule fails it."""
    assert verdicts(0.79, 0, ("interval", "strict"), 3.0, images=40) == [True, False]


def test_resamples_are_the_same_whatever_the_memory_and_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    matches = DrawnImages(1, 50).matches()
    whole = class_samples(matches, 60)
    monkeypatch.setattr(bootstrap, "_BYTES", 8 * 700.0)
    parts = class_samples(matches, 60)
    assert np.array_equal(whole.ap, parts.ap) and np.array_equal(whole.ap50, parts.ap50)
    assert np.array_equal(whole.ap[:, :25], class_samples(matches, 25).ap)
    assert len(set(whole.means()["AP"].tolist())) == 60


def test_too_much_work_draws_fewer_resamples_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    matches = DrawnImages(1, 50).matches()
    assert len(resampled(matches).array("AP")) == 1 + RESAMPLES and capsys.readouterr().out == ""
    monkeypatch.setattr(bootstrap, "_MOST_WORK", 1.0)
    fewer = resampled(matches)
    assert len(fewer.array("AP")) == 1 + bootstrap.LEAST_RESAMPLES
    assert "100 resamples instead of 1,000, since the split has many images" in capsys.readouterr().out
    monkeypatch.undo()
    # Both can be compared: their first resamples have the same images.
    assert resampled(matches).loss_interval(fewer) == fewer.loss_interval(fewer)


def tiny(images: int, objects: list[int], right: list[int], alarms: list[int]) -> Resamples:
    """Return resamples of images with one object each in ``objects``, found in ``right``; numbers of images."""
    box, away = [1.0, 1.0, 9.0, 9.0], [50.0, 50.0, 5.0, 5.0]
    truth = Boxes.annotated(
        np.array(objects, np.int64),
        np.zeros(len(objects), np.int64),
        np.array([box] * len(objects), np.float64).reshape(-1, 4),
        crowd=np.zeros(len(objects), bool),
    )
    detections = Boxes.detected(
        np.array([*right, *alarms], np.int64),
        np.zeros(len(right) + len(alarms), np.int64),
        np.array([box] * len(right) + [away] * len(alarms), np.float64).reshape(-1, 4),
        score=np.linspace(0.9, 0.5, len(right) + len(alarms)),
    )
    return resampled(match_boxes(truth, detections, np.arange(images), 1))


def test_sets_with_nothing_to_measure_have_no_interval() -> None:
    for images in (0, 1, 3):
        empty = tiny(images, [], [], [0] if images else [])
        assert empty.interval("AP") is None and empty.intervals() == {}
        assert empty.loss_interval(empty) is None and empty.images_with_objects == 0


def test_one_image_has_an_interval_without_width_which_does_not_judge() -> None:
    for found, ap in (([0], 1.0), ([], 0.0)):
        one = tiny(1, [0], found, [])
        interval = one.interval("AP")
        assert interval and (interval.low, interval.high, interval.images) == (ap, ap, 1)
        assert not interval.is_usable
    # In more than a third of its resamples this set has no object at all.
    assert tiny(40, [0], [0], [1]).interval("AP") is not None


def test_no_detections_have_ap_0_and_all_right_have_ap_1() -> None:
    everywhere = list(range(LEAST_IMAGES))
    none, all_right = tiny(LEAST_IMAGES, everywhere, [], []), tiny(LEAST_IMAGES, everywhere, everywhere, [])
    assert none.intervals() == {"AP": [0.0, 0.0], "AP50": [0.0, 0.0]}
    assert all_right.intervals() == {"AP": [1.0, 1.0], "AP50": [1.0, 1.0]}
    interval = none.loss_interval(all_right)
    assert interval and (interval.low, interval.high) == (1.0, 1.0) and interval.is_usable


def test_intervals_of_ap_stay_between_0_and_1() -> None:
    everywhere = list(range(LEAST_IMAGES))
    interval = tiny(LEAST_IMAGES, everywhere, everywhere[1:], []).interval("AP")
    assert interval and 0.85 < interval.low < 0.95 and interval.high == 1.0


def test_equal_models_differ_by_exactly_nothing() -> None:
    matches = DrawnImages(2, 60).matches()
    interval = resampled(matches).loss_interval(resampled(matches))
    assert interval and (interval.low, interval.high) == (0.0, 0.0)


def test_resamples_of_other_images_are_not_paired() -> None:
    first = tiny(2, [0, 1], [0], [])
    other = resampled(SplitMatches(np.array([5, 6]), DrawnImages(1, 2).matches().classes))
    assert first.loss_interval(first) is not None
    assert first.loss_interval(other) is None


def test_resamples_are_kept_in_results_and_records() -> None:
    resamples = resampled(DrawnImages(3, 40).matches())
    result = EvaluationResult(numbers={"AP": 0.5}, images=40, resamples=resamples)
    read = EvaluationResult.from_json(result.to_json())
    assert read == result and read.resamples and read.resamples.interval("AP") == resamples.interval("AP")
    assert len(result.to_json()) < 12_000
    assert resamples_in({"AP": 0.5, "resamples": json.loads(resamples.model_dump_json())}) == resamples
    # Results and records of earlier versions have none.
    old = json.loads(result.to_json())
    del old["resamples"]
    assert EvaluationResult.from_json(json.dumps(old)).resamples is None
    assert resamples_in({"AP": 0.5}) is None and resamples_in({"AP": 0.5, "resamples": None}) is None
