"""The findings of a data set, for people: a Markdown table, and the table of all kinds in docs/data.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubeyolo.data.finding_kinds import KINDS
from kubeyolo.report.formats import integer
from kubeyolo.report.model_card import markdown_table

NONE = "No findings: every annotation and every image is as it should be."


def findings_table(findings: Sequence[Mapping[str, Any]]) -> str:
    """Return the findings of a data set as Markdown.

    Args:
        findings: As the record of the validation has them: code, count, about, done, first, remedy.
    """
    if not findings:
        return f"{NONE}\n"
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


def kinds_table() -> str:
    """Return every kind of finding as a Markdown table: code, actions, texts, remedy."""
    rows = [
        [
            f"`{kind.code}`",
            f"**{kind.actions[0]}**, {', '.join(kind.actions[1:])}",
            kind.about,
            kind.done,
            kind.advice(next(action for action in kind.actions if action != "refuse")),
        ]
        for kind in KINDS.values()
    ]
    lines = ["| code | **default**, other | finding | when mended or warned about | remedy |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def _note(finding: Mapping[str, Any]) -> str:
    return f" ({finding['note']})" if finding.get("note") else ""
