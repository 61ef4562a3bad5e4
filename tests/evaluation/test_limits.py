"""Limits on the figures of a model: one rule for all of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kubeyolo.config.schema import Judge
from kubeyolo.errors import InputError, WorkError
from kubeyolo.evaluation.intervals import LEAST_IMAGES, Interval
from kubeyolo.evaluation.limits import (
    Check,
    Evidence,
    Verdict,
    check_drop,
    check_int8_share,
    check_least,
    check_numbers,
    check_parity,
    check_size,
    number_warnings,
)

NUMBERS = {"AP": 0.512, "AP50": 0.83, "APs": None}
NOISE, BEYOND = 4e-7, 6e-7
"""Of what a figure is measured in: noise of floating point, and more than that."""

# A limit and a distance from it, outwards where that is positive, as a check of each kind.
KINDS: dict[str, Callable[[float, float], Check]] = {
    "least": lambda limit, out: check_least({"AP50": limit - out}, "AP50", limit),
    "gate": lambda limit, out: check_least({"AP": limit - out}, "AP", limit, "evaluate.min_ap"),
    "drop": lambda limit, out: check_drop(0.5 - limit / 100 - out, 0.5, limit),
    "parity": lambda limit, out: check_parity("onnx", "stride 8", limit * (1 + out), limit, 8),
    "share": lambda limit, out: check_int8_share(round(1e8 * (limit - out)), 10**8, limit),
    "size": lambda limit, out: check_size(round(1e8 * (limit + out)), 10**8, limit),
}

# Judged by an interval, its better or its worse end decides: the end is at this distance from the limit.
KINDS |= {
    "least by interval": lambda limit, out: judged_least(limit, "interval", limit - 0.1, limit - out),
    "least by strict": lambda limit, out: judged_least(limit, "strict", limit - out, limit + 0.1),
    "drop by interval": lambda limit, out: judged_drop(limit, "interval", limit / 100 + out, limit / 100 + 0.1),
    "drop by strict": lambda limit, out: judged_drop(limit, "strict", limit / 100 - 0.1, limit / 100 + out),
}


def judged_least(limit: float, judge: Judge, low: float, high: float) -> Check:
    """Return the check of an AP whose value says the opposite of its interval."""
    value = limit - 0.05 if judge == "interval" else limit + 0.05
    return check_least({"AP": value}, "AP", limit, "evaluate.min_ap", Evidence(judge, Interval(low, high, 300)))


def judged_drop(limit: float, judge: Judge, low: float, high: float) -> Check:
    loss = limit / 100 + (0.05 if judge == "interval" else -0.05)
    return check_drop(0.5 - loss, 0.5, limit, evidence=Evidence(judge, Interval(low, high, 300)))


FIGURES = {
    "least": "AP50 is ",
    "gate": "AP is ",
    "drop": "it (?:loses|gains) ",
    "parity": "network by ",
    "share": r"quantized \(",
    "size": "the file has ",
}
"""What stands before the figure in a message."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [1e-4, 0.05, 0.29, 0.35, 0.5, 0.57, 0.7, 0.95, 0.999])
def test_a_figure_passes_at_its_limit_and_fails_beyond_it(kind: str, limit: float) -> None:
    check = KINDS[kind]
    for out in (-0.01, -BEYOND, -NOISE, 0.0, NOISE):
        assert check(limit, out).passed, (kind, limit, out)
    for out in (BEYOND, 1e-6, 1e-4, 0.01):
        assert not check(limit, out).passed, (kind, limit, out)


@pytest.mark.parametrize("kind", FIGURES)
@given(limit=st.floats(0.001, 0.999), out=st.floats(-0.001, 0.001))
@example(limit=0.07, out=0.0)
@example(limit=0.57, out=5.1e-7)
@example(limit=0.57, out=4e-5)
def test_what_a_check_shows_is_what_it_says(kind: str, limit: float, out: float) -> None:
    """Whoever compares the figure in the message with the limit comes to the same verdict."""
    check = KINDS[kind](limit, out)
    assert check.passed == (out <= 5e-7) or abs(out - 5e-7) < 2e-8
    figure = re.search(rf"{FIGURES[kind]}([\d.e+-]+)", check.message)
    assert figure, check.message
    shown = float(figure[1]) * (-1 if "gains" in check.message else 1)
    unit = {"drop": 100, "share": 100, "parity": limit}.get(kind, 1)
    beyond = (
        (shown - limit * (100 if kind == "share" else 1)) / unit * (-1 if kind in ("least", "gate", "share") else 1)
    )
    assert beyond < BEYOND if check.passed else beyond > NOISE


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (check_least({"AP": 0.49996}, "AP", 0.5, "evaluate.min_ap"), "AP is 0.49996, below the gate"),
        (check_least({"AP": 0.51204}, "AP", 0.51204), "AP is 0.51204, at least 0.51204"),
        (check_least({"AP": 0.4999999}, "AP", 0.5), "AP is 0.5000, at least 0.5"),
        (check_drop(0.4, 0.41004, 1.0), "it loses 1.004 points, the limit is 1"),
        (check_parity("onnx", "stride 8", 1.0004e-4, 1e-4, 8), "by 0.00010004 of"),
        (check_int8_share(94_998, 100_000, 0.95), "(94.998 %), at least 95 % are required"),
        (check_size(35_004, 100_000, 0.35), "has 0.35004 of"),
    ],
)
def test_a_figure_that_rounds_to_its_limit_is_shown_with_more_digits(check: Check, words: str) -> None:
    assert words in check.message


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf])
def test_figures_that_are_missing_fail_whatever_the_limit_is(missing: float | None) -> None:
    assert not check_least({"AP": missing}, "AP", 0.0).passed
    assert not check_least({"AP": missing}, "AP", 0.5, "evaluate.min_ap").passed
    for ap, baseline in ((missing, 0.5), (0.5, missing), (missing, missing)):
        check = check_drop(ap, baseline, 100.0)
        assert not check.passed and "there is nothing to compare" in check.message
        assert "not defined (no ground truth)" in check.message
    assert missing is None or not check_parity("onnx", "stride 8", missing, 1e-4, 8).passed
    (warning,) = number_warnings({"AP": missing})
    assert warning.startswith("AP is not defined")


def test_a_network_without_convolutions_has_none_in_int8() -> None:
    assert not check_int8_share(0, 0, 0.95).passed and check_int8_share(0, 0, 0.0).passed


@pytest.mark.parametrize(
    ("baseline", "max_drop", "passed", "words"),
    [
        (0.522, 1.0, True, "it loses 1.00 points"),
        (0.5221, 1.0, False, "it loses 1.01 points"),
        (0.5, 0.0, True, "it gains 1.20 points"),
        (0.512, 0.0, True, "it gains 0.00 points"),
        (0.512, -0.5, False, "it gains 0.00 points"),
        (0.5, -1.3, False, "it gains 1.20 points"),
        (None, 1.0, False, "there is nothing to compare"),
    ],
)
def test_a_drop_is_measured_in_points(baseline: float | None, max_drop: float, passed: bool, words: str) -> None:
    (check,) = check_numbers(NUMBERS, {"AP": baseline}, max_drop=max_drop).checks
    assert check.passed == passed
    assert words in check.message
    assert check.name == f"drop of AP <= {max_drop:g} points"


def test_a_check_of_one_of_several_networks_names_it() -> None:
    check = check_drop(0.4, 0.5, 1.0, "retrain.max_regression", network="int8")
    assert check.name == "int8: drop of AP <= 1 points"
    assert check.message == (
        "int8: AP is 0.4000, AP of the baseline is 0.5000: it loses 10.00 points, the limit is 1 "
        "(retrain.max_regression)"
    )


def test_least_values_hold_from_their_own_value_on() -> None:
    checks = check_numbers(NUMBERS, least={"AP": 0.512, "AP50": 0.8301, "APs": 0.0}).checks
    assert [check.passed for check in checks] == [True, False, False]
    assert checks[1].message == "AP50 is 0.8300, at least 0.8301 is required"
    assert checks[2].message == "APs is not defined (no ground truth), at least 0 is required"


JUDGES: tuple[Judge, ...] = ("point", "interval", "strict")

LOSSES = {
    "within": (Interval(-0.002, 0.008, 300), 0.003, "all of it within the limit", [True, True, True]),
    "undecided, passes": (
        Interval(0.002, 0.014, 300),
        0.008,
        "the limit is inside, so 300 images",
        [True, True, False],
    ),
    "undecided, fails": (Interval(0.006, 0.02, 300), 0.013, "the limit is inside, so 300 images", [False, True, False]),
    "beyond": (Interval(0.011, 0.03, 300), 0.02, "all of it beyond the limit", [False, False, False]),
    "few, passes": (Interval(0.0, 0.0, 1), 0.0, "1 image with objects is too few to tell", [True, True, False]),
    "few, fails": (Interval(-0.1, 0.2, LEAST_IMAGES - 1), 0.02, "29 images with objects are", [False, False, False]),
}
"""Interval of a loss whose limit is 1 point, the loss itself, what the message says, and whether it passes by rule."""


@pytest.mark.parametrize("case", LOSSES)
def test_the_rule_decides_how_a_loss_with_an_interval_is_judged(case: str) -> None:
    interval, loss, words, passes = LOSSES[case]
    for judge, passed in zip(JUDGES, passes, strict=True):
        check = check_drop(0.5 - loss, 0.5, 1.0, "retrain.max_regression", evidence=Evidence(judge, interval))
        assert check.passed == passed, judge
        assert words in check.message and f"{100 * interval.low:.2f} to {100 * interval.high:.2f}" in check.message
        assert check.name == "drop of AP <= 1 points" + ("" if judge == "point" else f", judged by {judge}")
        if interval.images < LEAST_IMAGES:
            ends = {"point": "(30 are required)", "interval": "so the value itself decides"}
            assert check.message.endswith(ends.get(judge, "so evaluate.judge = strict fails"))


def test_a_metric_whose_interval_is_not_known_is_judged_by_its_value_or_fails_by_strict() -> None:
    for ap, passes in ((0.5, [True, True, False]), (0.4, [False, False, False])):
        for judge, passed in zip(JUDGES, passes, strict=True):
            (check,) = check_numbers({"AP": ap}, least={"AP": 0.45}, judge=judge).checks
            assert check.passed == passed
            assert ("interval is not known" in check.message) == (judge != "point")
    for judge in JUDGES:
        check = check_least({"AP": None}, "AP", 0.0, evidence=Evidence(judge, Interval(0.0, 1.0, 300)))
        assert not check.passed and "interval" not in check.message


def test_a_passing_gate_does_not_say_that_ap_is_below_it() -> None:
    strict = judged_least(0.5, "strict", 0.49, 0.6)
    assert not strict.passed and "below the gate" not in strict.message
    assert "at least 0.5 is required (evaluate.min_ap); 95 % interval 0.4900 to 0.6000" in strict.message
    lenient = judged_least(0.5, "interval", 0.4, 0.51)
    assert lenient.passed and "below the gate" not in lenient.message


def test_metrics_without_intervals_cannot_be_judged_by_one() -> None:
    for judge in ("interval", "strict"):
        with pytest.raises(InputError, match=f"limit of APs: evaluate.judge is {judge}, but only AP and AP50 have"):
            check_numbers({}, least={"AP": 0.1, "APs": 0.1}, judge=judge)
    assert check_numbers(NUMBERS, least={"AP75": 0.1}).checks[0].name == "AP75 >= 0.1"


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="unknown COCO metric 'AP5'; did you mean"):
        check_numbers(NUMBERS, least={"AP5": 0.1})
    with pytest.raises(InputError, match="give --baseline"):
        check_numbers(NUMBERS, max_drop=1.0)
    with pytest.raises(InputError, match="no limit is given"):
        check_numbers(NUMBERS, {"AP": 0.1}, max_drop=math.inf)
    with pytest.raises(InputError, match="nan: expected a number of points"):
        check_numbers(NUMBERS, {"AP": 0.1}, {"AP": 0.1}, math.nan)


def test_a_verdict_passes_when_all_of_its_checks_do() -> None:
    good, bad, worse = Check("a", True, "fine"), Check("b", False, "too low"), Check("c", False, "too large")
    assert Verdict().passed and Verdict((good,)).passed and not Verdict((good, bad)).passed
    Verdict((good,)).enforce("m")
    with pytest.raises(WorkError, match="^m: too low; too large$"):
        Verdict((bad, good, worse)).enforce("m")
    with pytest.raises(WorkError, match="^too low$"):
        Verdict((bad,)).enforce()
    assert Verdict((bad,)).rows == [{"name": "b", "passed": False, "message": "too low"}]
