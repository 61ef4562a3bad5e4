"""The findings of a data set as Markdown; not part of the page, because importing its charts takes long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubeyolo.report.formats import integer
from kubeyolo.report.model_card import markdown_table

NO_FINDINGS = "No findings: all annotations and images are valid."


def findings_table(findings: Sequence[Mapping[str, Any]]) -> str:
    """Return the findings of a data set as Markdown.

    Args:
        findings: The findings in the record of the validation: code, count, about, done, first, remedy.
    """
    if not findings:
        return f"{NO_FINDINGS}\n"
    rows = [
        [
            integer(each["count"]),
            f"{each['about']}{_note(each)}",
            each["done"],
            each["first"],
            each["remedy"],
            each["code"],
        ]
        for each in findings
    ]
    return markdown_table(["Count", "Finding", "Action", "First", "Remedy", "Code"], rows) + "\n"


def _note(finding: Mapping[str, Any]) -> str:
    return f" ({finding['note']})" if finding.get("note") else ""
