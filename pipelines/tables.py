"""Tables in READMEs and docs that are made of the catalogue, between marks; the rest of a file is written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from kubeyolo.catalogue import DETECTOR_TRAINING, PIPELINES, STEPS, Step, steps_of
from kubeyolo.compiled.read import fields_of, pipeline_text, task_names
from kubeyolo.config.reference import reference_table
from kubeyolo.report.findings import kinds_table

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- made by: make pipelines ({}) -->", "<!-- end of what is made -->"


def component_tables(step: Step) -> str:
    """Return the tables of the inputs, outputs and artifacts of a component."""
    inputs = {"settings": "what configure hands to this step"} | dict(step.inputs)
    if step.name == "configure":
        inputs = {"*": "the fields of the form; see docs/runs.md"}
    parts = ["## Inputs", _table(("name", "what"), inputs.items())]
    outputs = step.outputs or {"*": "the settings of each later step, what is known of the run, and the record"}
    parts += ["## Outputs", _table(("name", "what"), outputs.items())]
    rows = [(each.name, each.kind, each.about) for each in step.artifacts]
    parts += ["## Artifacts", _table(("name", "kind", "what"), rows)]
    if step.reads:
        parts += [f"It reads these settings: {', '.join(f'`{key}`' for key in step.reads)}."]
    return "\n\n".join(parts)


def step_table() -> str:
    """Return the table of the steps of the training pipeline."""
    steps = steps_of(task_names(pipeline_text(DETECTOR_TRAINING)))
    return _table(("step", "what", "image"), [(f"`{s.name}`", s.title, f"`kubeyolo-{s.image}`") for s in steps])


def form_tables() -> str:
    """Return the tables of the fields of every pipeline's form."""
    parts = []
    for name, title in PIPELINES.items():
        rows = [
            (
                f"`{field}`",
                f"`{facts['defaultValue']}`" if facts.get("defaultValue") else "",
                str(facts.get("description", "")),
            )
            for field, facts in sorted(fields_of(pipeline_text(name)).items())
        ]
        parts += [f"### {name}", title, _table(("field", "default", "what"), rows)]
    return "\n\n".join(parts)


def made_files() -> dict[Path, str]:
    """Return the text that every file with a made table should have."""
    makers: dict[Path, tuple[str, Callable[[], str]]] = {
        ROOT / "components" / name / "README.md": ("tables", partial(component_tables, step))
        for name, step in STEPS.items()
    }
    makers[ROOT / "README.md"] = ("steps", step_table)
    makers[ROOT / "docs" / "runs.md"] = ("forms", form_tables)
    makers[ROOT / "docs" / "data.md"] = ("findings", lambda: kinds_table().strip())
    makers[ROOT / "docs" / "configuration.md"] = ("settings", lambda: reference_table().strip())
    return {path: _replaced(path, what, make()) for path, (what, make) in makers.items()}


def stale_tables() -> list[str]:
    """Return the names of files whose made tables differ from the catalogue."""
    return [str(path.relative_to(ROOT)) for path, text in made_files().items() if path.read_text("utf-8") != text]


def write_tables() -> list[Path]:
    """Write the made tables anew and return the files that have changed."""
    changed = {path: text for path, text in made_files().items() if path.read_text("utf-8") != text}
    for path, text in changed.items():
        path.write_text(text, encoding="utf-8")
    return list(changed)


def _replaced(path: Path, what: str, made: str) -> str:
    text, begin = path.read_text(encoding="utf-8"), BEGIN.format(what)
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"{path}: the marks {begin!r} and {END!r} are missing")
    return f"{before}{begin}\n\n{made}\n\n{END}{after}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
