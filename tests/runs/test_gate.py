"""Limits on COCO numbers, and what is written about them."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from kubeyolo.errors import InputError
from kubeyolo.evaluation.limits import check_numbers
from kubeyolo.runs.folder import COCO_KEYS
from kubeyolo.runs.gate import junit_xml, markdown_summary

NUMBERS = dict(zip(COCO_KEYS, [0.512, 0.83, 0.6, None, 0.5, 0.7, 0.3, 0.6, 0.65, None, 0.6, 0.8], strict=True))


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


def test_junit_has_a_case_for_each_check() -> None:
    checks = check_numbers(NUMBERS, {"AP": 0.6}, {"AP": 0.5}, 1.0)
    suites = ElementTree.fromstring(junit_xml("gate <1>", checks, 12.34))
    (suite,) = suites
    assert suite.attrib["name"] == "gate <1>"
    assert {key: suite.attrib[key] for key in ("tests", "failures", "errors", "time")} == {
        "tests": "2",
        "failures": "1",
        "errors": "0",
        "time": "12.3",
    }
    first, second = suite
    assert first.attrib["name"] == "AP >= 0.5" and len(first) == 0
    failure = second.find("failure")
    assert failure is not None and "it loses 8.80 points" in failure.attrib["message"]


def test_the_summary_has_all_numbers_side_by_side() -> None:
    checks = check_numbers(NUMBERS, {"AP": 0.5, "AP50": None}, {"AP": 0.6}, 1.0)
    text = markdown_summary("gate", checks, NUMBERS, {"AP": 0.5, "AP50": None}, {"bundle": "minio://m/b"})
    assert text.startswith("## ❌ gate\n")
    assert "| `AP >= 0.6` | ❌ | AP is 0.5120, at least 0.6 is asked for |" in text
    assert "| AP | 0.5120 | 0.5000 | +1.20 |" in text
    assert "| AP50 | 0.8300 | – | – |" in text
    assert "- bundle: `minio://m/b`" in text
    alone = markdown_summary("gate", check_numbers(NUMBERS, least={"AP": 0.5}), NUMBERS)
    assert alone.startswith("## ✅ gate\n") and "baseline" not in alone
    assert sum(line.startswith(tuple(f"| {key} |" for key in COCO_KEYS)) for line in alone.splitlines()) == 12
