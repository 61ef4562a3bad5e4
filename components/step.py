"""Makes components from functions and the catalogue entries of their steps."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from kfp import dsl

from kubeyolo import __version__
from kubeyolo.catalogue import STEPS, Step
from kubeyolo.config.form import describe_field

SETTINGS = "The settings of this step, from the step configure."
_OUTPUTS_OF_CONFIGURE = {
    "run": "Information about the run, such as its name, model, store and data.",
    "data": "URI of the data set; empty if no training is needed.",
    "bundle": "Reference of the bundle to evaluate.",
    "baseline": "Reference of the bundle to compare with; empty if there is none.",
    "record": "Reference of metrics.json, the record of the step.",
}


def image(name: str) -> str:
    """Return an image's reference in a compiled pipeline; a run replaces it with a reference that has a digest."""
    return f"kubeyolo-{name}:{__version__}"


def step(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that makes a Kubeflow component from the function of a step.

    The image, the descriptions of inputs and outputs, and the name of the task come from the catalogue.

    Args:
        name: Name of the step in the catalogue.
    """
    entry = STEPS[name]

    def make(function: Callable[..., Any]) -> Any:
        function.__doc__ = _docstring(entry, function)
        component = dsl.component(
            function, base_image=image(entry.image), packages_to_install=[], install_kfp_package=False
        )
        return renamed(component, name.replace("_", "-"))

    return make


def renamed(component: Any, name: str) -> Any:
    """Return a component with a different task name: Kubeflow would call a second task of evaluate "evaluate-2"."""
    component.component_spec = dataclasses.replace(component.component_spec, name=name)
    return component


def _docstring(entry: Step, function: Callable[..., Any]) -> str:
    """Return a docstring from which kfp reads the descriptions of inputs and outputs."""
    descriptions = {artifact.name: artifact.about for artifact in entry.artifacts}
    signature = inspect.signature(function)
    inputs = [f"    {name}: {_input(entry, name, descriptions)}" for name in signature.parameters]
    outputs = [f"    {name}: {_output(entry, name)}" for name in signature.return_annotation._fields]
    return "\n".join([entry.title, "", "Args:", *inputs, "", "Returns:", *outputs])


def _input(entry: Step, name: str, artifacts: dict[str, str]) -> str:
    if name in artifacts:
        return artifacts[name]
    if entry.name == "configure":
        return describe_field(name)
    return SETTINGS if name == "settings" else entry.inputs[name]


def _output(entry: Step, name: str) -> str:
    if entry.name == "configure":
        return _OUTPUTS_OF_CONFIGURE.get(name, f"Settings of {name}.")
    return entry.outputs[name]
