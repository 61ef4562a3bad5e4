"""What is written about a gate: JUnit XML and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from kubeyolo.evaluation.limits import Check, Numbers, number_text
from kubeyolo.runs.folder import COCO_KEYS


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
        row = f"| {key} | {number_text(numbers.get(key))} |"
        if baseline is not None:
            row += f" {number_text(baseline.get(key))} | {_points(numbers.get(key), baseline.get(key))} |"
        lines.append(row)
    lines += ["", *(f"- {label}: `{link}`" for label, link in (links or {}).items())] if links else []
    return "\n".join(lines) + "\n"


def _points(value: float | None, baseline: float | None) -> str:
    return "–" if value is None or baseline is None else f"{(value - baseline) * 100:+.2f}"
