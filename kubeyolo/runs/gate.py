"""What a model must reach to pass: limits on its COCO numbers, and on what it loses against a baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from kubeyolo.errors import InputError, suggest
from kubeyolo.runs.folder import COCO_KEYS

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
        if key not in COCO_KEYS:
            raise InputError(f"unknown COCO number {key!r}{suggest(key, COCO_KEYS)}")
        value = numbers.get(key)
        passed = value is not None and value >= limit
        checks.append(Check(f"{key} >= {limit:g}", passed, f"{key} is {_text(value)}, at least {limit:g} is asked for"))
    if math.isfinite(max_drop):
        if baseline is None:
            raise InputError("a largest drop is given, but no baseline that it is measured against; give --baseline")
        checks.append(_check_drop(numbers.get("AP"), baseline.get("AP"), max_drop))
    if not checks:
        raise InputError("no limit is given: give --min-ap, --min, or --baseline with --max-drop")
    return checks


def junit_xml(name: str, checks: Sequence[Check], seconds: float) -> str:
    """Return the checks as JUnit XML: a test case each."""
    failures = sum(not check.passed for check in checks)
    counts = {"tests": str(len(checks)), "failures": str(failures), "errors": "0", "time": f"{seconds:.1f}"}
    suites = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": name, "skipped": "0", **counts})
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", {"classname": name, "name": check.name, "time": "0"})
        if not check.passed:
            ElementTree.SubElement(case, "failure", {"message": check.message}).text = check.message
    ElementTree.indent(suites)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'


def markdown_summary(
    name: str,
    checks: Sequence[Check],
    numbers: Numbers,
    baseline: Numbers | None = None,
    links: Mapping[str, str] | None = None,
) -> str:
    """Return the checks and the 12 numbers as Markdown."""
    passed = all(check.passed for check in checks)
    lines = [f"## {'✅' if passed else '❌'} {name}", "", "| check | | |", "|---|---|---|"]
    lines += [f"| `{check.name}` | {'✅' if check.passed else '❌'} | {check.message} |" for check in checks]
    head, rule = "| | model |", "|---|---:|"
    if baseline is not None:
        head, rule = head + " baseline | points |", rule + "---:|---:|"
    lines += ["", head, rule]
    for key in COCO_KEYS:
        row = f"| {key} | {_text(numbers.get(key))} |"
        if baseline is not None:
            row += f" {_text(baseline.get(key))} | {_points(numbers.get(key), baseline.get(key))} |"
        lines.append(row)
    lines += ["", *(f"- {label}: `{link}`" for label, link in (links or {}).items())] if links else []
    return "\n".join(lines) + "\n"


def _check_drop(ap: float | None, baseline: float | None, max_drop: float) -> Check:
    name = f"drop of AP <= {max_drop:g} points"
    if ap is None or baseline is None:
        return Check(name, False, f"AP is {_text(ap)}, of the baseline {_text(baseline)}: there is nothing to compare")
    # Ten-thousandths of a point are noise of floating point.
    drop = round((baseline - ap) * 100, 4)
    words = f"loses {drop:.2f}" if drop > 0 else f"gains {abs(drop):.2f}"
    return Check(name, drop <= max_drop, f"AP is {ap:.4f}, of the baseline {baseline:.4f}: it {words} points")


def _points(value: float | None, baseline: float | None) -> str:
    return "–" if value is None or baseline is None else f"{(value - baseline) * 100:+.2f}"


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
