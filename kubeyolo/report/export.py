"""The report of export_model: files, and their parity with the trained network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubeyolo.evaluation.limits import Verdict
from kubeyolo.formats import size_text
from kubeyolo.report.formats import compact
from kubeyolo.report.page import Stat, fact_rows, render


def export_report(facts: Mapping[str, Any], verdict: Verdict) -> str:
    """Return the report of an export as one HTML page.

    Args:
        facts: ``files`` maps names to sizes in bytes. ``parity`` maps a format to its levels, and each level to a
            relative difference. ``not_measured`` lists files that were not compared. ``rtol`` is the largest relative
            difference allowed, ``model`` is in the heading. All other facts are listed.
        verdict: Whether the levels of each format are close enough to the levels of the trained network.
    """
    files: Mapping[str, float] = facts.get("files", {})
    largest = max(files.values(), default=0.0)
    worst = max((value for levels in facts.get("parity", {}).values() for value in levels.values()), default=0.0)
    stats = [Stat(name, size_text(size)) for name, size in files.items()]
    if verdict.checks:
        stats.append(Stat("Largest difference", compact(worst), "relative, raw outputs"))
    unmeasured: Sequence[str] = facts.get("not_measured", ())
    shown = {"files", "parity", "not_measured", "model", "rtol"}
    rest = {key: value for key, value in facts.items() if key not in shown}
    agree = "The exported networks agree with the trained network"
    lead = "The trained network in other formats. Every file was run and compared with the trained network."
    if unmeasured:
        agree = f"The exported networks agree with the trained network; not measured: {', '.join(unmeasured)}"
        lead = (
            "The trained network in other formats. Every file was run and compared with the trained network, except "
            f"{', '.join(unmeasured)}: only Ascend's own tools run AIR."
        )
    return render(
        "export.html",
        kind="export",
        title=f"{facts['model']}: exported" if "model" in facts else "Exported network",
        lead=lead,
        verdict=verdict,
        verdict_heading=agree if verdict.passed else "An exported network differs from the trained network",
        verdict_text=f"Largest relative difference {compact(worst)}; allowed {compact(facts.get('rtol', 0.0))}.",
        stats=stats,
        files=[
            (name, size_text(size), size / max(largest, 1.0), "not measured" if name in unmeasured else "compared")
            for name, size in files.items()
        ],
        facts=fact_rows(rest),
    )
