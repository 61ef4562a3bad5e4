"""A compiled pipeline: form, tasks, images and resources, and the binding of references, defaults and resources."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Any

import yaml

from kubeyolo.catalogue import DETECTOR_TRAINING, Resources
from kubeyolo.compiled.resources import MEMORY_LIMITS, changed_resources, container_resources, resources_of
from kubeyolo.errors import InputError, check_known
from kubeyolo.processes import IMAGE

_COMPILED = resources.files("kubeyolo.compiled")
_OTHER_KIND = re.compile(
    r"""[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-f_]+)                          # 0x10
    |[-+]?(\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)(e[-+]?[0-9_]+)?     # 1, 1_0, 1e-3
    |[-+]?[0-9][0-9_]*(:[0-9_]+)+(\.[0-9_]*)?                           # 1:30
    |[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([t\s].*)?                           # 2024-01-01
    |[-+]?\.(inf|nan)|y|n|yes|no|on|off|true|false|null|~|<<|=|""",
    re.IGNORECASE | re.VERBOSE,
)
"""Texts that YAML 1.1 or 1.2 reads as a number, a date, a boolean or null when they are not quoted."""

Document = dict[str, Any]


def pipeline_names() -> tuple[str, ...]:
    """Return the names of the compiled pipelines in the wheel."""
    return tuple(sorted(entry.name[:-5] for entry in _COMPILED.iterdir() if entry.name.endswith(".yaml")))


@dataclass(frozen=True)
class CompiledPipeline:
    """A pipeline as Kubeflow reads it. Its YAML is parsed once, on first use."""

    text: str

    @staticmethod
    def named(name: str = DETECTOR_TRAINING) -> CompiledPipeline:
        """Return a pipeline from the wheel, with image names instead of references.

        Raises:
            InputError: No pipeline has this name.
        """
        check_known("pipeline", name, pipeline_names())
        return _read(name)

    @property
    def description(self) -> str:
        """The description, which explains the fields of the form."""
        return str(self._pipeline.get("pipelineInfo", {}).get("description", ""))

    @property
    def fields(self) -> dict[str, Document]:
        """The fields of the form by name; each has its type, description, default and choices."""
        parameters = self._pipeline["root"].get("inputDefinitions", {}).get("parameters", {})
        return {str(name): dict(facts) for name, facts in parameters.items()}

    @property
    def required_fields(self) -> tuple[str, ...]:
        """The fields of the form that have no default."""
        return tuple(name for name, facts in self.fields.items() if not facts.get("isOptional"))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks, including tasks within conditions, such as ``validate_dataset``."""
        return tuple(name.replace("-", "_") for name, task in tasks_of(self._pipeline) if not self._graph(task))

    @property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """The dependencies between tasks, as pairs of (earlier, later) names.

        Tasks within a condition depend on all tasks that the condition depends on. Indirect dependencies are left out:
        only direct dependencies are drawn.
        """
        waits = dict(self._waits(self._pipeline["root"], frozenset()))
        reach = {name: _all_before(name, waits) for name in waits}
        return tuple(
            (before.replace("-", "_"), name.replace("-", "_"))
            for name in sorted(waits)
            for before in sorted(waits[name])
            if not any(before in reach[other] for other in waits[name] - {before})
        )

    @property
    def image_references(self) -> tuple[str, ...]:
        """The references of the images."""
        return tuple(sorted({container["image"] for container in _containers(self._pipeline)}))

    @property
    def image_names(self) -> tuple[str, ...]:
        """The names of the images, without registry, tag and digest."""
        return tuple(sorted({_image_name(reference) for reference in self.image_references}))

    def bind_images(self, images: Mapping[str, str]) -> CompiledPipeline:
        """Return the pipeline with image references instead of names.

        Other names are not changed. Kubeflow's cache keys hold the reference, so bind digests and not tags.

        Args:
            images: Reference by name, such as ``{"kubeyolo-train": "registry/kubeyolo-train@sha256:…"}``.

        Raises:
            InputError: A name is not in the pipeline, or a reference is empty.
        """
        known = self.image_names
        for name, reference in images.items():
            check_known("image", name, known)
            if not reference or any(character.isspace() for character in reference):
                raise InputError(f"image {name}: {reference!r} is not an image reference")
        documents = self._copy()
        for container in _containers(documents[0]):
            container["image"] = images.get(_image_name(container["image"]), container["image"])
            # Of an image by its name alone, nobody could tell later which image it was.
            _set_variable(container, IMAGE, container["image"] if "@" in container["image"] else "")
        return CompiledPipeline(dump_pipeline(documents))

    def bind_defaults(self, form: Mapping[str, str]) -> CompiledPipeline:
        """Return the pipeline with its form filled in.

        Args:
            form: Text by field; fields that the pipeline does not have are left out.
        """
        documents = self._copy()
        fields = documents[0]["root"]["inputDefinitions"]["parameters"]
        for name, value in form.items():
            if name in fields:
                fields[name] |= {"defaultValue": value, "isOptional": True}
        return CompiledPipeline(dump_pipeline(documents))

    @property
    def resources(self) -> dict[str, Resources]:
        """Requests and limits of the pod of each task, by the name of the task."""
        return {name: resources_of(container) for name, container in _task_containers(self._pipeline)}

    @property
    def memory_limits(self) -> dict[str, str]:
        """Memory that the pod of each task may use, by the name of the task; tasks without a limit are left out."""
        return {name: each.memory for name, each in self.resources.items() if each.memory}

    def bind_resources(self, changes: Mapping[str, str]) -> CompiledPipeline:
        """Return the pipeline with other requests and limits; its first step receives the memory limits.

        Args:
            changes: Quantities by task and resource; see :func:`kubeyolo.compiled.resources.changed_resources`.

        Raises:
            InputError: A task or a resource is unknown, or a quantity is not allowed.
        """
        bound = changed_resources(self.resources, changes)
        documents = self._copy()
        limits = json.dumps({name: each.memory for name, each in sorted(bound.items()) if each.memory})
        for name, container in _task_containers(documents[0]):
            container["resources"] = container_resources(bound[name])
            if name == "configure":
                _set_variable(container, MEMORY_LIMITS, limits)
        return CompiledPipeline(dump_pipeline(documents))

    def without_literals(self) -> CompiledPipeline:
        """Return the pipeline without the lists of allowed values of its fields: older servers refuse these lists."""
        documents = self._copy()
        for facts in documents[0]["root"]["inputDefinitions"]["parameters"].values():
            facts.pop("literals", None)
        return CompiledPipeline(dump_pipeline(documents))

    def without_retries(self) -> CompiledPipeline:
        """Return the pipeline without retries of its tasks: on a single machine no pod can be lost."""
        documents = self._copy()
        for _, task in tasks_of(documents[0]):
            task.pop("retryPolicy", None)
        return CompiledPipeline(dump_pipeline(documents))

    @cached_property
    def _documents(self) -> list[Document]:
        return list(yaml.safe_load_all(self.text))

    @property
    def _pipeline(self) -> Document:
        # A second document has settings for Kubernetes only.
        return self._documents[0]

    def _copy(self) -> list[Document]:
        return copy.deepcopy(self._documents)

    def _graph(self, task: Document) -> Document | None:
        """Return the graph of a group of tasks; None for a single task."""
        component = self._pipeline["components"][task["componentRef"]["name"]]
        return component if "dag" in component else None

    def _waits(self, graph: Document, outer: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
        """Yield each task of a graph, and of its groups, with the tasks that it depends on; all depend on ``outer``."""
        tasks = graph["dag"]["tasks"]
        for name, task in tasks.items():
            before = outer.union(*(self._members(tasks, other) for other in task.get("dependentTasks", ())))
            group = self._graph(task)
            if group:
                yield from self._waits(group, before)
            else:
                yield name, before

    def _members(self, tasks: Document, name: str) -> frozenset[str]:
        """Return the name of a task, or the names of all tasks of a group."""
        group = self._graph(tasks[name])
        if group is None:
            return frozenset({name})
        inner = group["dag"]["tasks"]
        return frozenset().union(*(self._members(inner, each) for each in inner))


@cache
def _read(name: str) -> CompiledPipeline:
    return CompiledPipeline((_COMPILED / f"{name}.yaml").read_text(encoding="utf-8"))


def tasks_of(document: Document) -> Iterator[tuple[str, Document]]:
    """Yield the tasks of a pipeline and of the graphs within it, by name."""
    for component in (document["root"], *document["components"].values()):
        yield from component.get("dag", {}).get("tasks", {}).items()


def dump_pipeline(documents: Iterable[Any]) -> str:
    """Return the documents of a pipeline as YAML that all parsers read alike: texts like ``1e-3`` are quoted."""
    return str(yaml.dump_all(documents, Dumper=_Dumper, sort_keys=True))


class _Dumper(yaml.SafeDumper):
    """Quotes each text that some version of YAML reads as a number, a boolean, a date or null."""

    def text(self, value: str) -> yaml.ScalarNode:
        """Return a text as a node."""
        return self.represent_scalar(
            "tag:yaml.org,2002:str", value, style="'" if _OTHER_KIND.fullmatch(value) else None
        )


_Dumper.add_representer(str, _Dumper.text)


def _all_before(name: str, waits: Mapping[str, frozenset[str]]) -> set[str]:
    found: set[str] = set()
    for before in waits[name]:
        found |= {before} | _all_before(before, waits)
    return found


def _containers(pipeline: Document) -> list[Document]:
    executors = pipeline["deploymentSpec"]["executors"].values()
    return [executor["container"] for executor in executors if "container" in executor]


def _task_containers(pipeline: Document) -> Iterator[tuple[str, Document]]:
    """Yield the container of each task, by the name of the task."""
    executors = pipeline["deploymentSpec"]["executors"]
    for name, task in tasks_of(pipeline):
        label = pipeline["components"][task["componentRef"]["name"]].get("executorLabel")
        if label:
            yield name.replace("-", "_"), executors[label]["container"]


def _set_variable(container: dict[str, Any], name: str, value: str) -> None:
    """Set an environment variable of a container; an empty value removes it."""
    others = [each for each in container.get("env", ()) if each["name"] != name]
    container["env"] = [*others, {"name": name, "value": value}] if value else others


def _image_name(image: str) -> str:
    """Return the name in a reference: ``kubeyolo-train`` for ``registry:5000/kubeyolo-train:1.0`` or ``…@sha256:…``."""
    return image.rsplit("/", 1)[-1].split("@")[0].split(":")[0]
