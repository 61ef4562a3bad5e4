"""The report of export_model: files, and their parity with the trained network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubeyolo.report.formats import compact, label_of, size_text
from kubeyolo.report.page import Stat, fact_rows, render


@dataclass(frozen=True)
class FileRow:
    """A file, its size, and that size as a fraction of the largest."""

    name: str
    size: str
    share: float


@dataclass(frozen=True)
class ParityRow:
    """The differences of one output of one format."""

    format: str
    level: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """Whether all outputs agree, in words."""

    passed: bool
    heading: str
    text: str


def export_report(facts: Mapping[str, Any]) -> str:
    """Return the report of an export as one HTML page.

    Args:
        facts: ``files`` maps names to bytes. ``parity`` maps a format to its outputs, and those to a relative
            difference or to a mapping of named differences. ``rtol`` is the largest relative difference allowed,
            ``images`` on how many images it was measured, ``model`` the heading. Anything else is shown as it is.
    """
    files: Mapping[str, float] = facts.get("files", {})
    parity, columns = _parity_rows(facts.get("parity", {}))
    largest = max(files.values(), default=0.0)
    worst = _worst(facts.get("parity", {}))
    stats = [Stat(name, size_text(size)) for name, size in files.items()]
    if worst is not None:
        stats.append(Stat("Largest difference", compact(worst), "relative, raw outputs"))
    rest = {key: value for key, value in facts.items() if key not in {"files", "parity", "model", "rtol", "images"}}
    images = f" on {facts['images']} real images" if "images" in facts else " on real images"
    return render(
        "export.html",
        kind="export",
        title=f"{facts['model']}: exported" if "model" in facts else "Exported network",
        lead="The trained network in formats that other runtimes read, each run and compared before it was stored.",
        verdict=_verdict(worst, facts.get("rtol")),
        stats=stats,
        files=[FileRow(name, size_text(size), size / max(largest, 1.0)) for name, size in files.items()],
        parity=parity,
        parity_columns=columns,
        parity_hint=f"Raw outputs of the exported network against the trained one{images}, level by level.",
        facts=fact_rows(rest),
    )


def _parity_rows(parity: Mapping[str, Any]) -> tuple[list[ParityRow], list[str]]:
    """Return the rows of all formats and the names of their columns, in order of appearance."""
    flat: list[tuple[str, str, Mapping[str, Any]]] = []
    for name, levels in parity.items():
        outputs = levels if isinstance(levels, Mapping) else {"all outputs": levels}
        for level, value in outputs.items():
            flat.append((name, str(level), value if isinstance(value, Mapping) else {"relative": value}))
    columns = list(dict.fromkeys(key for _, _, values in flat for key in values))
    rows = [ParityRow(name, level, tuple(_figure(values.get(key)) for key in columns)) for name, level, values in flat]
    return rows, [
        f"{column} difference" if column in {"relative", "absolute"} else label_of(column) for column in columns
    ]


def _worst(parity: Mapping[str, Any]) -> float | None:
    """Return the largest relative difference: values named so, or values without a name."""
    found: list[float] = []
    for levels in parity.values():
        outputs = levels if isinstance(levels, Mapping) else {"all": levels}
        for value in outputs.values():
            named = value if isinstance(value, Mapping) else {"relative": value}
            found.extend(float(number) for key, number in named.items() if "rel" in key and number is not None)
    return max(found, default=None)


def _verdict(worst: float | None, allowed: float | None) -> Verdict | None:
    if worst is None or allowed is None:
        return None
    passed = worst <= allowed
    heading = "The exported networks compute what was trained" if passed else "An exported network differs"
    text = f"Largest relative difference {compact(worst)}; allowed {compact(allowed)}."
    return Verdict(passed, heading, text)


def _figure(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.1e}" if isinstance(value, float) else str(value)
