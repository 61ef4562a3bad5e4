"""The plan of a run: its work and its data, the differences from the preset, and every setting with its origin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kubeyolo.report.formats import integer, setting
from kubeyolo.report.model_card import escape, markdown_table
from kubeyolo.report.page import fact_rows, render


@dataclass(frozen=True)
class SettingRow:
    """One setting: its dotted key, its value, the value of the preset, and the origin of the value."""

    key: str
    value: object
    preset: object
    origin: str


@dataclass(frozen=True, kw_only=True)
class PlanView:
    """The content of the plan of a run.

    Attributes:
        name: Name of the run.
        lead: What the run does, in a sentence.
        facts: Data, fingerprint, store and other facts.
        images: Images by split.
        settings: Every setting.
        estimate: Time, memory and disk, in lines.
        notes: Remarks for the person who starts the run.
    """

    name: str
    lead: str
    facts: Mapping[str, str]
    images: Mapping[str, int] = field(default_factory=dict)
    settings: Sequence[SettingRow] = ()
    estimate: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def changed(self) -> list[SettingRow]:
        """The settings whose value differs from the preset."""
        return [row for row in self.settings if row.value != row.preset]


def plan_text(view: PlanView) -> str:
    """Return the plan of a run as Markdown, for Kubeflow's pages."""
    parts = [f"# {escape(view.name)}", escape(view.lead)]
    if view.estimate:
        parts += ["## Estimate", _lines(view.estimate)]
    if view.notes:
        parts += ["## Notes", _lines(view.notes)]
    parts += ["## What differs from the preset", _changes(view)]
    parts += ["## The run", markdown_table(["", ""], [[key, value] for key, value in _facts(view).items()])]
    rows = [[row.key, setting(row.value), row.origin] for row in view.settings]
    parts += ["## Every setting", markdown_table(["Setting", "Value", "From"], rows)]
    return "\n\n".join(parts) + "\n"


def configuration_report(view: PlanView) -> str:
    """Return every setting of a run with its origin as one HTML page."""
    changed = view.changed
    return render(
        "configuration.html",
        kind="configuration",
        title=view.name,
        lead=view.lead,
        facts=fact_rows(_facts(view)),
        estimate=list(view.estimate),
        notes=list(view.notes),
        changed=[(row.key, setting(row.value), setting(row.preset), row.origin) for row in changed],
        sections=_sections(view.settings),
    )


def _changes(view: PlanView) -> str:
    if not view.changed:
        return "Nothing."
    rows = [[row.key, setting(row.value), setting(row.preset), row.origin] for row in view.changed]
    return markdown_table(["Setting", "Value", "Preset", "From"], rows)


def _facts(view: PlanView) -> dict[str, str]:
    images = {f"{split} images": integer(count) for split, count in view.images.items()}
    return {**{key: value for key, value in view.facts.items() if value}, **images}


def _sections(rows: Iterable[SettingRow]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    sections: dict[str, list[tuple[str, str, str]]] = {}
    for row in rows:
        section, _, name = row.key.rpartition(".")
        sections.setdefault(section or "run", []).append((name, setting(row.value), row.origin))
    return list(sections.items())


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)
