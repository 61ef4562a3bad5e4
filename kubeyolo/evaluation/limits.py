"""Limits on the COCO numbers of a model, and on what it loses against another one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from kubeyolo.errors import InputError, suggest
from kubeyolo.evaluation.results import COCO_NUMBERS

_KEYS = tuple(number.key for number in COCO_NUMBERS)

Numbers = Mapping[str, float | None]


@dataclass(frozen=True)
class Check:
    """One limit, and whether it holds.

    Attributes:
        name: What is compared, such as ``AP >= 0.5``.
        passed: Whether it holds.
        message: The numbers in words.
    """

    name: str
    passed: bool
    message: str


def number_warnings(numbers: Numbers) -> list[str]:
    """Return what anyone who reads the numbers should know first, in sentences; nothing in the usual case."""
    ap = numbers.get("AP")
    if ap is not None and ap <= 0:
        return [
            "AP is 0: no detection matches an annotated object. Look whether training has converged, whether the "
            "classes are those of the data set, and whether boxes and images belong together."
        ]
    if "AP" in numbers and ap is None:
        return ["AP is not defined: the split has no annotated objects, crowds left aside."]
    return []


def check_numbers(
    numbers: Numbers,
    baseline: Numbers | None = None,
    least: Mapping[str, float] | None = None,
    max_drop: float = math.inf,
) -> list[Check]:
    """Compare the numbers of a model with limits.

    Args:
        numbers: COCO numbers of the model, 0 to 1; None where there is no ground truth.
        baseline: Those of the model it is compared with, on the same data.
        least: Least value by key, such as ``{"AP": 0.5}``.
        max_drop: Most points of AP (AP × 100) that the model may lose against the baseline.

    Returns:
        A check for each limit.

    Raises:
        InputError: A key is unknown, there is no limit at all, or a drop without a baseline.
    """
    checks = []
    for key, limit in (least or {}).items():
        if key not in _KEYS:
            raise InputError(f"unknown COCO number {key!r}{suggest(key, _KEYS)}")
        value = numbers.get(key)
        passed = value is not None and value >= limit
        message = f"{key} is {number_text(value)}, at least {limit:g} is asked for"
        checks.append(Check(f"{key} >= {limit:g}", passed, message))
    if math.isfinite(max_drop):
        if baseline is None:
            raise InputError("a largest drop is given, but no baseline that it is measured against; give --baseline")
        checks.append(check_drop(numbers.get("AP"), baseline.get("AP"), max_drop))
    if not checks:
        raise InputError("no limit is given: give --min-ap, --min, or --baseline with --max-drop")
    return checks


def number_text(value: float | None) -> str:
    """Return a COCO number with four decimals, or a dash where there is none."""
    return "–" if value is None else f"{value:.4f}"


def check_regression(points: float) -> None:
    """Refuse a largest loss of AP that is no number of points.

    Raises:
        InputError: It is not finite.
    """
    if not math.isfinite(points):
        raise InputError(f"max_regression = {points}: expected a number of points, such as 0.5")


def check_drop(ap: float | None, baseline: float | None, max_drop: float) -> Check:
    """Compare AP (0 to 1) with that of a baseline; ``max_drop`` is in points."""
    name = f"drop of AP <= {max_drop:g} points"
    if ap is None or baseline is None:
        return Check(
            name,
            False,
            f"AP is {number_text(ap)}, of the baseline {number_text(baseline)}: there is nothing to compare",
        )
    # Ten-thousandths of a point are noise of floating point.
    drop = round((baseline - ap) * 100, 4)
    words = f"loses {drop:.2f}" if drop > 0 else f"gains {abs(drop):.2f}"
    return Check(name, drop <= max_drop, f"AP is {ap:.4f}, of the baseline {baseline:.4f}: it {words} points")
