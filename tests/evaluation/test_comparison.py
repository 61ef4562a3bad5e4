"""Two models on the same images: paired differences, and the images on which they differ."""

from __future__ import annotations

import numpy as np
import pytest

from kubeyolo.evaluation.coco_matches import SplitMatches, match_boxes
from kubeyolo.evaluation.comparison import (
    Difference,
    ImageDifference,
    Mistakes,
    best_threshold,
    compare_matches,
    mistakes_by_image,
)
from kubeyolo.evaluation.engines import Boxes
from kubeyolo.evaluation.intervals import Interval
from tests.evaluation.simulated import DrawnImages

OBJECT, ELSEWHERE = [10.0, 10.0, 20.0, 20.0], [60.0, 60.0, 20.0, 20.0]


def matches(detections: list[tuple[int, list[float], float]], crowd: int = -1) -> SplitMatches:
    """Return the matches of detections (image, box, score) on 4 images with ids 11 to 14 and an object each.

    An image may have a crowd instead.
    """
    truth = Boxes.annotated(
        np.arange(4), np.zeros(4, np.int64), np.array([OBJECT] * 4), crowd=np.array([i == crowd for i in range(4)])
    )
    found = Boxes.detected(
        np.array([row[0] for row in detections], np.int64),
        np.zeros(len(detections), np.int64),
        np.array([row[1] for row in detections], np.float64).reshape(-1, 4),
        score=np.array([row[2] for row in detections], np.float64),
    )
    return match_boxes(truth, found, np.arange(11, 15), 1)


FIRST = matches([(0, OBJECT, 0.9), (1, OBJECT, 0.8), (2, ELSEWHERE, 0.7), (3, OBJECT, 0.6), (3, ELSEWHERE, 0.1)])
SECOND = matches([(0, OBJECT, 0.9), (1, ELSEWHERE, 0.8), (1, ELSEWHERE, 0.75), (2, OBJECT, 0.7), (3, OBJECT, 0.6)])


def test_the_best_threshold_is_the_score_of_the_highest_f1() -> None:
    # Of 4 objects 3 are found: F1 is 2·3 / (4 + 4) at .6, 2·2 / (2 + 4) at .8, 2·3 / (5 + 4) at .1.
    assert best_threshold(FIRST) == 0.6
    assert best_threshold(matches([(2, ELSEWHERE, 0.9)])) == 1.0
    assert best_threshold(matches([])) == 1.0
    # The two detections of the same score are taken together, however they are ordered.
    assert best_threshold(matches([(0, OBJECT, 0.9), (1, OBJECT, 0.5), (1, ELSEWHERE, 0.5)])) in (0.5, 0.9)


def test_mistakes_are_missed_objects_and_false_alarms_above_the_threshold() -> None:
    assert mistakes_by_image(FIRST, 0.6).tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 1], [1, 0, 0]]
    assert mistakes_by_image(FIRST, 0.05).tolist()[3] == [1, 0, 1]
    in_crowd = matches([(2, OBJECT, 0.9), (2, ELSEWHERE, 0.8)], crowd=2)
    assert mistakes_by_image(in_crowd, 0.5).tolist()[2] == [0, 0, 1]


def test_the_images_that_differ_most_come_first() -> None:
    found = compare_matches(FIRST, SECOND, ["disc"])
    assert found.thresholds == (0.6, 0.6)
    assert found.images == (
        ImageDifference(12, Mistakes(1, 0, 0), Mistakes(0, 1, 2)),
        ImageDifference(13, Mistakes(0, 1, 1), Mistakes(1, 0, 0)),
    )
    assert [each.first.total for each in found.images] == [0, 2]


def test_differences_are_paired_and_by_class() -> None:
    drawn = DrawnImages(11, 200)
    found = compare_matches(drawn.matches(), drawn.matches(0.7), ["a", "b"])
    ap, ap50 = found.numbers
    assert (ap.name, ap50.name) == ("AP", "AP50")
    assert ap.difference and ap.first and ap.second and ap.interval
    assert ap.difference == pytest.approx(ap.second - ap.first) and -0.13 < ap.difference < -0.05
    assert ap.interval.low < ap.difference < ap.interval.high < 0 and ap.decision == "worse"
    assert [each.name for each in found.classes] == ["a", "b"]
    mean = np.mean([each.difference or 0.0 for each in found.classes])
    assert mean == pytest.approx(ap.difference, abs=1e-6)
    for each in found.classes:
        # A class has half of the objects, so its interval is wider.
        assert each.interval and each.interval.high - each.interval.low > ap.interval.high - ap.interval.low
    widths = [each.interval("AP") for each in found.resamples]
    assert all(each and each.high - each.low > ap.interval.high - ap.interval.low for each in widths)
    back = compare_matches(drawn.matches(0.7), drawn.matches(), ["a", "b"]).numbers[0]
    assert back.decision == "better"


def test_equal_models_are_equal_and_do_not_differ_on_any_image() -> None:
    same = DrawnImages(11, 60).matches()
    found = compare_matches(same, same, ["a", "b"])
    assert found.images == () and found.numbers[0].decision == "equal"
    assert found.numbers[0].difference == 0.0


@pytest.mark.parametrize(
    ("interval", "decision"),
    [
        (Interval(0.001, 0.02, 300), "better"),
        (Interval(-0.02, -0.001, 300), "worse"),
        (Interval(-0.01, 0.02, 300), "undecided"),
        (Interval(0.1, 0.2, 29), "undecided"),
        (None, "undecided"),
    ],
)
def test_a_decision_needs_an_interval_on_one_side_of_0(interval: Interval | None, decision: str) -> None:
    assert Difference("AP", 0.5, 0.51, interval).decision == decision


def test_classes_without_objects_have_no_difference() -> None:
    found = compare_matches(matches([]), matches([]), ["disc"])
    assert found.classes[0].difference == 0.0 and found.images == ()
    none = match_boxes(
        Boxes.annotated(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), crowd=np.zeros(0, bool)),
        Boxes.detected(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), score=np.zeros(0)),
        np.arange(2),
        1,
    )
    found = compare_matches(none, none, ["disc"])
    assert found.classes[0] == Difference("disc", None, None, None) and found.numbers[0].interval is None
