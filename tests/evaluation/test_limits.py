"""Limits on COCO numbers."""

from __future__ import annotations

import math

import pytest

from kubeyolo.errors import InputError
from kubeyolo.evaluation.limits import check_numbers

NUMBERS = {"AP": 0.512, "AP50": 0.83, "APs": None}


@pytest.mark.parametrize(
    ("baseline", "max_drop", "passed", "words"),
    [
        (0.522, 1.0, True, "it loses 1.00 points"),
        (0.5221, 1.0, False, "it loses 1.01 points"),
        (0.5, 0.0, True, "it gains 1.20 points"),
        (0.512, 0.0, True, "it gains 0.00 points"),
        (0.512, -0.5, False, "it gains 0.00 points"),
        (None, 1.0, False, "there is nothing to compare"),
    ],
)
def test_a_drop_is_measured_in_points(baseline: float | None, max_drop: float, passed: bool, words: str) -> None:
    (check,) = check_numbers(NUMBERS, {"AP": baseline}, max_drop=max_drop)
    assert check.passed == passed
    assert words in check.message
    assert check.name == f"drop of AP <= {max_drop:g} points"


def test_least_values_hold_from_their_own_value_on() -> None:
    checks = check_numbers(NUMBERS, least={"AP": 0.512, "AP50": 0.8301, "APs": 0.0})
    assert [check.passed for check in checks] == [True, False, False]
    assert checks[1].message == "AP50 is 0.8300, at least 0.8301 is asked for"
    assert checks[2].message.startswith("APs is –")


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="unknown COCO number 'AP5'; did you mean"):
        check_numbers(NUMBERS, least={"AP5": 0.1})
    with pytest.raises(InputError, match="give --baseline"):
        check_numbers(NUMBERS, max_drop=1.0)
    with pytest.raises(InputError, match="no limit is given"):
        check_numbers(NUMBERS, {"AP": 0.1}, max_drop=math.inf)
