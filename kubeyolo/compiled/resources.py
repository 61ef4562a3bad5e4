"""Requests and limits of the pods of steps: quantities, changes by ``STEP.RESOURCE``, their form in a pipeline."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from decimal import Decimal
from typing import Any

from kubeyolo.catalogue import Resources
from kubeyolo.errors import InputError, check_known

MEMORY_LIMITS = "KUBEYOLO_MEMORY_LIMITS"
"""Environment variable of the first step, with the memory limit of every step: ``{"train": "16Gi", …}``."""

RESOURCES = tuple(each.name for each in fields(Resources))
"""Names of the resources that can be changed."""

_ORIGIN = "resources"
"""The option ``--resources``, and the key of a schedule."""

_CPU = re.compile(r"([0-9]+(\.[0-9]+)?|[0-9]+m)")
_MEMORY = re.compile(r"[0-9]+(k|M|G|T|Ki|Mi|Gi|Ti)?")
_DECIMAL_MEMORY = re.compile(r"[0-9]+(\.[0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?")
_SHOWN = 80
_UNITS = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_LEAST_MEMORY, _MOST_MEMORY = 64 * 2**20, 64 * 2**40
_LEAST_CPU, _MOST_CPU = 0.001, 10_000

# Kubeflow 2.17 reads the texts; servers before it read the numbers, memory in units of 10^9 bytes.
_TEXTS = {
    "cpu": "resourceCpuRequest",
    "cpu_limit": "resourceCpuLimit",
    "memory": "resourceMemoryLimit",
    "memory_request": "resourceMemoryRequest",
}
_NUMBERS = {"cpu": "cpuRequest", "cpu_limit": "cpuLimit", "memory": "memoryLimit", "memory_request": "memoryRequest"}


def quantity(text: str) -> float:
    """Return a quantity of Kubernetes as a number: 0.25 for ``250m``, 17179869184 for ``16Gi``."""
    number = text.rstrip("mkKMGTi")
    return float(number) * _UNITS.get(text.removeprefix(number), 1)


def times(text: str, count: int) -> str:
    """Return a multiple of a quantity: 512Gi for 8 times 64Gi."""
    number = text.rstrip("mkKMGTi")
    return f"{(Decimal(number) * count).normalize():f}{text.removeprefix(number)}"


def changed_resources(current: Mapping[str, Resources], changes: Mapping[str, str]) -> dict[str, Resources]:
    """Return the resources of steps after changes.

    Args:
        current: Resources by step.
        changes: Quantities by step and resource, such as ``{"train.memory": "16Gi"}``. ``memory`` also sets
            ``memory_request``, unless the latter is among the changes.

    Raises:
        InputError: A step or a resource is unknown, or a quantity is not allowed.
    """
    by_step: dict[str, dict[str, str]] = {}
    for key, text in changes.items():
        step, dot, name = key.rpartition(".")
        if not dot:
            raise InputError(f"{_ORIGIN} {key}={text}: expected STEP.RESOURCE=QUANTITY, such as train.memory=16Gi")
        check_known("step", step, current, f"{_ORIGIN} {key}={text}")
        check_known("resource", name, RESOURCES, f"{_ORIGIN} {key}={text}")
        _check_quantity(key, name, text)
        by_step.setdefault(step, {})[name] = text
    return {step: _changed(step, each, by_step.get(step, {})) for step, each in current.items()}


def resources_of(container: Mapping[str, Any]) -> Resources:
    """Return the resources of a container of a compiled pipeline; those that are not set are empty."""
    found = container.get("resources", {})
    return Resources(**{name: str(found.get(key, "")) for name, key in _TEXTS.items()})


def container_resources(resources: Resources) -> dict[str, Any]:
    """Return the resources as a compiled pipeline has them; empty ones are left out."""
    values = {name: str(getattr(resources, name)) for name in RESOURCES if getattr(resources, name)}
    units = {name: 1e9 if "memory" in name else 1 for name in values}
    numbers = {_NUMBERS[name]: quantity(text) / units[name] for name, text in values.items()}
    return {_TEXTS[name]: text for name, text in values.items()} | numbers


def memory_limits_here() -> dict[str, str]:
    """Return the memory limit of every step, as the pipeline passes them to its first step; empty if it does not."""
    found = json.loads(os.environ.get(MEMORY_LIMITS) or "{}")
    return {str(step): str(limit) for step, limit in found.items()}


def doubled(memory: str) -> str:
    """Return twice a quantity of memory, in the same unit or in Mi: ``32Gi`` for ``16Gi``."""
    if _MEMORY.fullmatch(memory):
        return times(memory, 2)
    return f"{2 * quantity(memory) / 2**20:.0f}Mi"


def _changed(step: str, current: Resources, changes: Mapping[str, str]) -> Resources:
    values = dict(changes)
    if "memory" in values:
        values.setdefault("memory_request", values["memory"])
    if "cpu_limit" in values and quantity(values["cpu_limit"]) < quantity(current.cpu or "0"):
        values.setdefault("cpu", values["cpu_limit"])
    result = replace(current, **values)
    for request, limit in (("memory_request", "memory"), ("cpu", "cpu_limit")):
        asked, most = getattr(result, request), getattr(result, limit)
        if changes and asked and most and quantity(asked) > quantity(most):
            raise InputError(
                f"{_ORIGIN}: {step}.{request} = {asked} is more than {step}.{limit} = {most}; a pod cannot request "
                f"more than its limit: lower {step}.{request}, or raise {step}.{limit}"
            )
    return result


def _check_quantity(key: str, name: str, text: str) -> None:
    """Refuse a text that is not a quantity, or a quantity that no step can use, such as memory without a unit."""
    if problem := quantity_problem(text, name):
        raise InputError(f"{_ORIGIN} {key}={text}: {problem}")


def quantity_problem(text: str, name: str, may_have_decimals: bool = False) -> str:
    """Return why a text is no quantity that a pod can use; empty if it is one.

    Args:
        text: The text.
        name: Name of the resource: with ``memory`` in it, or processors.
        may_have_decimals: Whether memory may be written as ``1.5Gi``.
    """
    is_memory = "memory" in name
    example = "16Gi" if is_memory else "2 or 500m"
    forms = (_DECIMAL_MEMORY if may_have_decimals else _MEMORY) if is_memory else _CPU
    if not forms.fullmatch(text):
        return f"{text[:_SHOWN]!r} is not a quantity of {name}; write it as {example}"
    least, most = (_LEAST_MEMORY, _MOST_MEMORY) if is_memory else (_LEAST_CPU, _MOST_CPU)
    if not least <= quantity(text) <= most:
        return f"expected {name} from {'64Mi to 64Ti' if is_memory else '1m to 10000'}, such as {example}"
    return ""
