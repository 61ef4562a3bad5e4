"""What is written about a gate: JUnit XML and Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from kubeyolo.evaluation.limits import Check, Numbers, number_text
from kubeyolo.evaluation.results import COCO_KEYS

# XML has no way to write the other characters, such as the colours of a log.
_NOT_IN_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(name: str, checks: Sequence[Check], seconds: float, error: str = "") -> str:
    """Return the checks as JUnit XML: a test case each.

    Args:
        name: Of the suite.
        checks: What was checked.
        seconds: How long it took.
        error: Why nothing could be checked: a test case too, which is neither passed nor failed.
    """
    failures = sum(not check.passed for check in checks)
    counts = {
        "tests": str(len(checks) + bool(error)),
        "failures": str(failures),
        "errors": str(int(bool(error))),
        "time": f"{seconds:.1f}",
    }
    suites = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": name, "skipped": "0", **counts})
    told = [(check.name, "" if check.passed else "failure", check.message) for check in checks]
    for case_name, kind, message in [*told, *([("evaluation", "error", error)] if error else [])]:
        case = ElementTree.SubElement(suite, "testcase", {"classname": name, "name": case_name, "time": "0"})
        if kind:
            said = _NOT_IN_XML.sub("", message)
            ElementTree.SubElement(case, kind, {"message": said}).text = said
    ElementTree.indent(suites)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'


def markdown_summary(
    name: str,
    checks: Sequence[Check],
    numbers: Numbers,
    baseline: Numbers | None = None,
    links: Mapping[str, str] | None = None,
) -> str:
    """Return the checks and the 12 numbers as Markdown, with links to what was compared."""
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
    return "\n".join([*lines, *_link_lines(links)]) + "\n"


def markdown_error(name: str, error: str, links: Mapping[str, str] | None = None) -> str:
    """Return as Markdown that a model could not be evaluated, and why."""
    lines = [
        f"## ❌ {name}",
        "",
        "The model could not be evaluated:",
        "",
        *(f"    {line}" for line in error.splitlines()),
    ]
    return "\n".join([*lines, *_link_lines(links)]) + "\n"


def _link_lines(links: Mapping[str, str] | None) -> list[str]:
    return ["", *(f"- {label}: `{link}`" for label, link in links.items())] if links else []


def _points(value: float | None, baseline: float | None) -> str:
    return "–" if value is None or baseline is None else f"{(value - baseline) * 100:+.2f}"
