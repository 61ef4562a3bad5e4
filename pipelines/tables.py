"""Writes tables into READMEs and docs, between marks; all other text of these files is written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kubeyolo.catalogue import DETECTOR_TRAINING, PIPELINES, STEPS, Step, steps_of
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.config.schema import Config
from kubeyolo.data.finding_kinds import KINDS

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- made by: make pipelines ({}) -->", "<!-- end of what is made -->"

_TYPES = {"integer": "int", "number": "float", "boolean": "bool", "string": "text"}
_BOUNDS = (("exclusiveMinimum", "> "), ("minimum", "≥ "), ("exclusiveMaximum", "< "), ("maximum", "≤ "))


def component_tables(step: Step) -> str:
    """Return the tables of the inputs, outputs and artifacts of a component."""
    inputs = {"settings": "the settings of this step, from configure"} | dict(step.inputs)
    if step.name == "configure":
        inputs = {"*": "the fields of the form; see docs/runs.md"}
    parts = ["## Inputs", _table(("name", "what"), inputs.items())]
    outputs = step.outputs or {"*": "the settings of each later step, information about the run, and the record"}
    parts += ["## Outputs", _table(("name", "what"), outputs.items())]
    rows = [(each.name, each.kind, each.about) for each in step.artifacts]
    parts += ["## Artifacts", _table(("name", "kind", "what"), rows)]
    if step.reads:
        parts += [f"It reads these settings: {', '.join(f'`{key}`' for key in step.reads)}."]
    return "\n\n".join(parts)


def step_table() -> str:
    """Return the table of the steps of the training pipeline."""
    steps = steps_of(CompiledPipeline.named(DETECTOR_TRAINING).tasks)
    return _table(("step", "what", "image"), [(f"`{s.name}`", s.title, f"`kubeyolo-{s.image}`") for s in steps])


def resource_table() -> str:
    """Return the table of requests and limits of the pods of all steps."""
    rows = [
        (f"`{step.name}`", step.resources.cpu, step.resources.memory_request, step.resources.memory)
        for step in STEPS.values()
    ]
    return _table(("step", "`cpu`", "`memory_request`", "`memory`"), rows)


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
            for field, facts in sorted(CompiledPipeline.named(name).fields.items())
        ]
        parts += [f"### {name}", title, _table(("field", "default", "what"), rows)]
    return "\n\n".join(parts)


def setting_table() -> str:
    """Return the table of every key of the configuration: type and range, default, meaning."""
    rows = (
        (f"`{key}`", _type(schema), f"`{json.dumps(default)}`", schema["description"])
        for key, schema, default in _settings()
    )
    return _table(("key", "type", "default", "meaning"), rows)


def finding_table() -> str:
    """Return the table of every kind of finding in a data set: code, actions, texts, remedy."""
    rows = (
        (
            f"`{kind.code}`",
            f"**{kind.actions[0]}**, {', '.join(kind.actions[1:])}",
            kind.about,
            kind.done,
            kind.advice(next(action for action in kind.actions if action != "refuse")),
        )
        for kind in KINDS.values()
    )
    return _table(("code", "**default**, other", "finding", "when mended or warned about", "remedy"), rows)


def made_files() -> dict[Path, str]:
    """Return for each file with a generated table the text that it should have."""
    makers: dict[Path, tuple[str, Callable[[], str]]] = {
        ROOT / "components" / name / "README.md": ("tables", partial(component_tables, step))
        for name, step in STEPS.items()
    }
    makers[ROOT / "README.md"] = ("steps", step_table)
    makers[ROOT / "docs" / "cluster.md"] = ("resources", resource_table)
    makers[ROOT / "docs" / "runs.md"] = ("forms", form_tables)
    makers[ROOT / "docs" / "data.md"] = ("findings", finding_table)
    makers[ROOT / "docs" / "configuration.md"] = ("settings", setting_table)
    return {path: _replaced(path, what, make()) for path, (what, make) in makers.items()}


def stale_tables() -> list[str]:
    """Return the names of files whose generated tables differ from the catalogue."""
    return [str(path.relative_to(ROOT)) for path, text in made_files().items() if path.read_text("utf-8") != text]


def write_tables() -> list[Path]:
    """Write the generated tables again and return the files that have changed."""
    changed = {path: text for path, text in made_files().items() if path.read_text("utf-8") != text}
    for path, text in changed.items():
        path.write_text(text, encoding="utf-8")
    return list(changed)


def _settings() -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """Yield each dotted key with its JSON schema and its default."""
    document = Config.model_json_schema()
    for name, default in Config().model_dump(mode="json").items():
        if not isinstance(default, dict):
            yield name, document["properties"][name], default
            continue
        section = document["$defs"][type(getattr(Config(), name)).__name__]["properties"]
        for key, value in default.items():
            yield f"{name}.{key}", section[key], value


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    if schema["type"] == "object":
        return f"mapping of names to {_type(schema['additionalProperties'])}"
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    bounds = [f"{sign}{schema[bound]}" for bound, sign in _BOUNDS if bound in schema]
    if "multipleOf" in schema:
        bounds.append(f"multiple of {schema['multipleOf']}")
    return " ".join([_TYPES[schema["type"]], ", ".join(bounds)]).strip()


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
