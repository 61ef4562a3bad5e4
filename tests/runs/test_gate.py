"""What is written about limits on COCO numbers."""

from __future__ import annotations

from xml.etree import ElementTree

from kubeyolo.evaluation.limits import check_numbers
from kubeyolo.runs.folder import COCO_KEYS
from kubeyolo.runs.gate import junit_xml, markdown_summary

NUMBERS = dict(zip(COCO_KEYS, [0.512, 0.83, 0.6, None, 0.5, 0.7, 0.3, 0.6, 0.65, None, 0.6, 0.8], strict=True))


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
