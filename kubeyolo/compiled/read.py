"""The compiled pipelines that the wheel holds, and what they say: their fields, their tasks, and how those depend."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

import yaml

from kubeyolo.catalogue import DETECTOR_TRAINING
from kubeyolo.errors import InputError, suggest

_COMPILED = resources.files("kubeyolo.compiled")


def pipeline_names() -> tuple[str, ...]:
    """Return the names of the compiled pipelines."""
    return tuple(sorted(entry.name[:-5] for entry in _COMPILED.iterdir() if entry.name.endswith(".yaml")))


def pipeline_text(name: str = DETECTOR_TRAINING) -> str:
    """Return a compiled pipeline as YAML, with image names as they were compiled.

    Raises:
        InputError: No pipeline has this name.
    """
    if name not in pipeline_names():
        raise InputError(f"unknown pipeline {name!r}{suggest(name, pipeline_names())}")
    return (_COMPILED / f"{name}.yaml").read_text(encoding="utf-8")


def description_of(text: str) -> str:
    """Return the description of a compiled pipeline, which explains the fields of its form."""
    return str(_document(text).get("pipelineInfo", {}).get("description", ""))


def fields_of(text: str) -> dict[str, dict[str, Any]]:
    """Return the fields of the form of a compiled pipeline: type, description, default and choices by name."""
    parameters = _document(text)["root"].get("inputDefinitions", {}).get("parameters", {})
    return {str(name): dict(facts) for name, facts in parameters.items()}


def required_fields(text: str) -> tuple[str, ...]:
    """Return the fields of the form of a compiled pipeline that have no default."""
    return tuple(name for name, facts in fields_of(text).items() if not facts.get("isOptional"))


def task_names(text: str) -> tuple[str, ...]:
    """Return the names of the tasks of a compiled pipeline, also of those within conditions: ``validate_dataset``."""
    return tuple(name.replace("-", "_") for name, task in tasks_of(_document(text)) if not _is_group(text, task))


def edges_of(text: str) -> tuple[tuple[str, str], ...]:
    """Return which task of a compiled pipeline waits for which, as pairs of (earlier, later) names.

    The tasks within a condition wait for what the condition waits for. A task that waits for another one by way of a
    third is left out: only direct dependencies are drawn.
    """
    document = _document(text)
    waits = dict(_waits(document, document["root"], frozenset()))
    reach = {name: _all_before(name, waits) for name in waits}
    return tuple(
        (before.replace("-", "_"), name.replace("-", "_"))
        for name in sorted(waits)
        for before in sorted(waits[name])
        if not any(before in reach[other] for other in waits[name] - {before})
    )


def tasks_of(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the tasks of a pipeline and of the graphs within it, by name."""
    for component in (document["root"], *document["components"].values()):
        yield from component.get("dag", {}).get("tasks", {}).items()


def _is_group(text: str, task: dict[str, Any]) -> bool:
    return "dag" in _document(text)["components"][task["componentRef"]["name"]]


def _waits(
    document: dict[str, Any], graph: dict[str, Any], outer: frozenset[str]
) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield each task of a graph, and of the groups within it, with the tasks it waits for; all wait for ``outer``."""
    tasks = graph["dag"]["tasks"]
    for name, task in tasks.items():
        before = outer.union(*(_members(document, tasks, other) for other in task.get("dependentTasks", ())))
        component = document["components"][task["componentRef"]["name"]]
        if "dag" in component:
            yield from _waits(document, component, before)
        else:
            yield name, before


def _members(document: dict[str, Any], tasks: dict[str, Any], name: str) -> frozenset[str]:
    """Return the name of a task, or those of all tasks of a group."""
    component = document["components"][tasks[name]["componentRef"]["name"]]
    if "dag" not in component:
        return frozenset({name})
    inner = component["dag"]["tasks"]
    return frozenset().union(*(_members(document, inner, each) for each in inner))


def _all_before(name: str, waits: dict[str, frozenset[str]]) -> set[str]:
    found: set[str] = set()
    for before in waits[name]:
        found |= {before} | _all_before(before, waits)
    return found


@cache
def _document(text: str) -> dict[str, Any]:
    return dict(next(iter(yaml.safe_load_all(text))))
