"""Values for the parameters of a compiled pipeline, looked at before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from kubeyolo.config.load import load_config
from kubeyolo.errors import InputError, one_line, suggest
from kubeyolo.launch.launcher import LOCAL, VOLCANO, checked_settings

SECTIONS = ("data", "augment", "pretrain", "train", "evaluate", "export", "quantize")
"""Sections of the configuration that a pipeline has overrides for."""

TRAIN_PARAMETERS = ("image_size", "per_batch_size", "max_epoch", "optimizer", "lr", "processes", "seed")
"""Parameters of the pipelines that are values of the section ``train``."""

_WORDS = {
    "STRING": "a text",
    "NUMBER_INTEGER": "a whole number",
    "NUMBER_DOUBLE": "a number",
    "BOOLEAN": "true or false",
    "STRUCT": "a mapping, such as {lr: 0.01}",
    "LIST": "a list, such as [1, 2]",
}


def parameters_of(pipeline: str) -> dict[str, dict[str, Any]]:
    """Return the parameters of a compiled pipeline: type, description, default by name."""
    document = next(yaml.safe_load_all(pipeline))
    parameters = document["root"].get("inputDefinitions", {}).get("parameters", {})
    return {str(name): dict(facts) for name, facts in parameters.items()}


def parse_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """Return the values of ``name=value`` pairs, each value read as YAML.

    Raises:
        InputError: A pair has no ``=``, or its value is not YAML.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise InputError(f"--param {pair!r}: expected name=value, such as --param max_epoch=10")
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"--param {pair!r}: the value is not YAML: {one_line(error, 200)}") from error
    return values


def check_arguments(pipeline: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values in the types of a pipeline's parameters.

    Args:
        pipeline: The compiled pipeline as YAML.
        values: Value by name of parameter.

    Raises:
        InputError: A name is unknown, a value is of another type, or one without a default is missing.
    """
    known = parameters_of(pipeline)
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise InputError(f"unknown parameter {name!r}{suggest(name, known)}")
        checked[name] = _typed(name, value, known[name])
    missing = [name for name, facts in known.items() if name not in checked and not _has_default(facts)]
    if missing:
        about = known[missing[0]].get("description", "")
        raise InputError(f"no value for the parameter {missing[0]!r}{f' ({about})' if about else ''}")
    return checked


def check_contents(values: Mapping[str, Any]) -> None:
    """Refuse now what a step would refuse after others have worked: settings of the model, and of the launcher.

    Args:
        values: All arguments of a run, in the types of their parameters.

    Raises:
        InputError: A setting is unknown, not allowed, or does not go with another one.
    """
    overrides = {section: dict(values.get(f"{section}_overrides") or {}) for section in SECTIONS}
    # In a pipeline, 0 and an empty text are the preset's value.
    overrides["train"] |= {name: values[name] for name in TRAIN_PARAMETERS if values.get(name)}
    config = load_config(values.get("model") or None, overrides={name: of for name, of in overrides.items() if of})
    launcher = values.get("launcher") or LOCAL
    settings = checked_settings(launcher, values.get("cluster"))
    if launcher == VOLCANO:
        settings.check_train(config.train)


def _has_default(facts: Mapping[str, Any]) -> bool:
    return "defaultValue" in facts or bool(facts.get("isOptional"))


def _typed(name: str, value: Any, facts: Mapping[str, Any]) -> Any:
    kind = facts.get("parameterType", "STRING")
    if kind == "STRING" and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    if kind == "STRING" and value is None:
        return ""
    if kind == "NUMBER_INTEGER" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind == "NUMBER_DOUBLE" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind == "BOOLEAN" and isinstance(value, bool):
        return value
    if kind == "STRUCT" and isinstance(value, Mapping):
        return dict(value)
    if kind == "LIST" and isinstance(value, list):
        return value
    about = facts.get("description", "")
    raise InputError(
        f"parameter {name} = {value!r}: expected {_WORDS.get(kind, kind.lower())}{f' ({about})' if about else ''}"
    )
