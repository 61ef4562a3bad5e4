"""The texts of the files of a gate: JUnit XML and Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree

from kubeyolo.evaluation.intervals import LEVEL_TEXT, WITH_INTERVAL, Interval, Resamples
from kubeyolo.evaluation.limits import POINTS, Numbers, Verdict, number_text, points_lost
from kubeyolo.evaluation.results import COCO_KEYS

# XML cannot contain any other character, such as the colour codes of a log.
_NOT_IN_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


BothResamples = tuple[Resamples | None, Resamples | None]
"""Resamples of the model and of the baseline; None if they are not known."""


def junit_xml(
    name: str,
    verdict: Verdict,
    seconds: float,
    error: str = "",
    numbers: Numbers | None = None,
    baseline: Numbers | None = None,
    resamples: BothResamples = (None, None),
) -> str:
    """Return the checks as JUnit XML, with a test case for each check.

    Args:
        name: Name of the suite.
        verdict: The checks.
        seconds: Seconds of the evaluation.
        error: The reason if nothing could be checked. It becomes an additional test case with the result "error".
        numbers: COCO metrics of the model, which become properties of the suite, with their intervals.
        baseline: COCO metrics of the baseline.
        resamples: Resamples of both.
    """
    checks = verdict.checks
    failures = sum(not check.passed for check in checks)
    counts = {
        "tests": str(len(checks) + bool(error)),
        "failures": str(failures),
        "errors": str(int(bool(error))),
        "time": f"{seconds:.1f}",
    }
    suites = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": name, "skipped": "0", **counts})
    _add_properties(suite, _properties(numbers or {}, baseline or {}, resamples))
    cases = [(check.name, "" if check.passed else "failure", check.message) for check in checks]
    for case_name, kind, message in [*cases, *([("evaluation", "error", error)] if error else [])]:
        case = ElementTree.SubElement(suite, "testcase", {"classname": name, "name": case_name, "time": "0"})
        if kind:
            text = _NOT_IN_XML.sub("", message)
            ElementTree.SubElement(case, kind, {"message": text}).text = text
        else:
            ElementTree.SubElement(case, "system-out").text = _NOT_IN_XML.sub("", message)
    ElementTree.indent(suites)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'


def markdown_summary(
    name: str,
    verdict: Verdict,
    numbers: Numbers,
    baseline: Numbers | None = None,
    links: Mapping[str, str] | None = None,
    resamples: BothResamples = (None, None),
) -> str:
    """Return the checks and the 12 COCO metrics as Markdown, with links to the compared results.

    With resamples, AP and AP50 have their intervals.
    """
    lines = [f"## {'✅' if verdict.passed else '❌'} {name}", "", "| check | | |", "|---|---|---|"]
    lines += [f"| `{check.name}` | {'✅' if check.passed else '❌'} | {check.message} |" for check in verdict.checks]
    head, rule = "| | model |", "|---|---:|"
    if baseline is not None:
        head, rule = head + " baseline | points |", rule + "---:|---:|"
    if resamples[0] is not None:
        head, rule = f"{head} model, {LEVEL_TEXT} interval |", rule + "---:|"
        if baseline is not None:
            head, rule = f"{head} points, {LEVEL_TEXT} interval |", rule + "---:|"
    lines += ["", head, rule]
    for key in COCO_KEYS:
        row = f"| {key} | {number_text(numbers.get(key))} |"
        if baseline is not None:
            row += f" {number_text(baseline.get(key))} | {_points(numbers.get(key), baseline.get(key))} |"
        if resamples[0] is not None:
            row += f" {_interval_text(resamples[0].interval(key))} |"
            if baseline is not None:
                row += f" {_interval_text(_gain(resamples, key), '+.2f', POINTS)} |"
        lines.append(row)
    return "\n".join([*lines, *_link_lines(links)]) + "\n"


def markdown_error(name: str, error: str, links: Mapping[str, str] | None = None) -> str:
    """Return the Markdown report for a model that could not be evaluated, with the reason."""
    lines = [
        f"## ❌ {name}",
        "",
        "The model could not be evaluated:",
        "",
        *(f"    {line}" for line in error.splitlines()),
    ]
    return "\n".join([*lines, *_link_lines(links)]) + "\n"


def _add_properties(suite: ElementTree.Element, values: Mapping[str, str]) -> None:
    if values:
        properties = ElementTree.SubElement(suite, "properties")
        for name, value in values.items():
            ElementTree.SubElement(properties, "property", {"name": name, "value": value})


def _properties(numbers: Numbers, baseline: Numbers, resamples: BothResamples) -> dict[str, str]:
    """Return the metrics of the model and of the baseline, and their intervals, as texts by name."""
    found = {key: number_text(numbers[key]) for key in COCO_KEYS if key in numbers}
    found |= {f"baseline {key}": number_text(baseline[key]) for key in COCO_KEYS if key in baseline}
    for key in WITH_INTERVAL:
        for name, each in zip(("", "baseline "), resamples, strict=True):
            if each is not None and (interval := each.interval(key)):
                found[f"{name}{key}, {LEVEL_TEXT} interval"] = _interval_text(interval)
        if gain := _gain(resamples, key):
            found[f"points of {key}, {LEVEL_TEXT} interval"] = _interval_text(gain, "+.2f", POINTS)
    return found


def _gain(resamples: BothResamples, key: str) -> Interval | None:
    """Return the paired interval of the model minus the baseline."""
    model, baseline = resamples
    return baseline.loss_interval(model, key) if model and baseline else None


def _interval_text(interval: Interval | None, form: str = ".4f", scale: float = 1.0) -> str:
    return "–" if interval is None else f"{interval.low * scale:{form}} to {interval.high * scale:{form}}"


def _link_lines(links: Mapping[str, str] | None) -> list[str]:
    return ["", *(f"- {label}: {_code(link)}" for label, link in links.items())] if links else []


def _code(text: str) -> str:
    """Return a text as Markdown code in a line; its fence has more backticks than any row of them in the text."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{' '.join(text.splitlines())}{space}{fence}"


def _points(value: float | None, baseline: float | None) -> str:
    gained = points_lost(baseline, value)
    return "–" if gained is None else f"{gained:+.2f}"
