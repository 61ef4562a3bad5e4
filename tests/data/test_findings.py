"""Findings: their catalogue, how they add up, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kubeyolo
from kubeyolo.data.finding_kinds import KINDS
from kubeyolo.data.findings import Findings
from kubeyolo.errors import InputError
from kubeyolo.report.findings import findings_table
from pipelines.tables import finding_table

ROOT = Path(kubeyolo.__file__).parent


def test_every_kind_is_found_somewhere_and_has_a_remedy():
    source = "\n".join(path.read_text() for path in ROOT.glob("data/**/*.py") if path.name != "finding_kinds.py")
    for code, kind in KINDS.items():
        assert code == kind.code and f'"{code}"' in source, code
        assert kind.about and kind.done and kind.remedy
        assert kind.actions[0] in ("mend", "warn", "refuse") and "refuse" in kind.actions


def test_findings_of_a_kind_add_up_and_the_first_stays():
    findings = Findings()
    findings.add("box_outside", "a.json: annotation 1", 2)
    findings.add("box_outside", "b.json: annotation 7", 3, "note")
    findings.add("box_empty", "never", 0)
    findings.add("id_twice", "c.json")
    assert [finding.code for finding in findings.all()] == ["id_twice", "box_outside"]
    outside = findings.all()[1]
    assert (outside.count, outside.first, outside.note, outside.action) == (5, "a.json: annotation 1", "note", "mend")
    assert outside.words() == (
        "boxes that reach beyond their image: 5 (note); clipped to the image; first: a.json: annotation 1 [box_outside]"
    )
    assert outside.remedy == "optional: clip them in the annotation tool"
    findings.check()


def test_what_is_refused_is_told_with_its_first_its_number_and_what_else():
    findings = Findings({"box_outside": "refuse"})
    findings.add("box_outside", "a.json: annotation 1 has the bbox [1]", 4)
    findings.add("image_missing", "b.jpg is missing", 2)
    findings.add("image_dark", "c.jpg")
    with pytest.raises(InputError) as caught:
        findings.check()
    assert str(caught.value) == (
        "a.json: annotation 1 has the bbox [1] (and 3 more): boxes that reach beyond their image; clip them in the "
        "annotation tool [box_outside]; also refused: image files that are missing: 2 [image_missing]"
    )


def test_strict_refuses_what_is_mended_and_what_is_warned_of():
    for code in KINDS:
        findings = Findings(strict=True)
        findings.add(code, "first")
        with pytest.raises(InputError, match=rf"^first.*\[{code}\]$"):
            findings.check()


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        ({"box_outsid": "mend"}, "data.findings: unknown code 'box_outsid'; did you mean 'box_outside'?"),
        ({"box_outside": "warn"}, "data.findings.box_outside = 'warn': use mend or refuse"),
        ({"leak": "mend"}, "data.findings.leak = 'mend': use warn or refuse"),
    ],
)
def test_codes_and_actions_that_do_not_exist_are_named(actions, words):
    with pytest.raises(InputError, match=re.escape(words)):
        Findings(actions)


def test_tables_have_every_finding_and_no_markup_of_files():
    findings = Findings()
    findings.add("name_near", "<b>*a|b*</b>", 3)
    table = findings_table([finding.facts() for finding in findings.all()])
    assert "| 3 | file names that differ" in table and "<b>" not in table and r"\|" in table
    assert findings_table([]).startswith("No findings: ")
    assert finding_table().count("\n| `") == len(KINDS)
