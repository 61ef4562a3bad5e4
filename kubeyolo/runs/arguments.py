"""Values for the parameters of a compiled pipeline, looked at before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from kubeyolo.bundle import check_version
from kubeyolo.config.load import load_config
from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError, one_line, suggest
from kubeyolo.launch.launcher import LOCAL, VOLCANO, checked_settings
from kubeyolo.storage.base import check_key
from kubeyolo.storage.location import FileLocation, parse

SECTIONS = ("data", "augment", "pretrain", "train", "evaluate", "export", "quantize")
"""Sections of the configuration that a pipeline has overrides for."""

SETTINGS = {
    "train": ("image_size", "per_batch_size", "max_epoch", "optimizer", "lr", "processes", "seed"),
    "evaluate": ("min_ap",),
    "quantize": ("max_drop",),
}
"""Parameters of the pipelines that are values of a section, by section."""

PLACES = ("data", "store", "pointer", "bundle")
"""Parameters of the pipelines that say where something lies."""

OPTIONAL_PLACES = ("classification", "latest", "baseline")
"""Those that may be empty."""

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
    """Refuse now what a step on the cluster would refuse after others have worked.

    Looked at are the settings of the model and of the launcher, and what is to be the name of something. Of what lies
    in the store, a data set is looked at where another split is evaluated than those that every one has.

    Args:
        values: All arguments of a run, in the types of their parameters.

    Raises:
        InputError: A setting is unknown, not allowed, or does not go with another one; a place is one that pods do not
            reach; a name is not possible.
    """
    from kubeyolo.models.registry import check_image_size

    overrides = {section: dict(values.get(f"{section}_overrides") or {}) for section in SECTIONS}
    for section, names in SETTINGS.items():
        # In a pipeline, 0 and an empty text are the preset's value.
        overrides[section] |= {name: values[name] for name in names if values.get(name)}
    config = load_config(values.get("model") or None, overrides={name: of for name, of in overrides.items() if of})
    check_formats(config)
    check_image_size(config)
    launcher = values.get("launcher") or LOCAL
    settings = checked_settings(launcher, values.get("cluster"))
    if launcher == VOLCANO:
        settings.check_train(config.train)
    for name in PLACES + OPTIONAL_PLACES:
        if values.get(name) or (name in PLACES and name in values):
            remote_place(f"parameter {name}", values[name])
    _check_names(values)
    _check_split(values, config.evaluate.split)


def check_formats(config: Config) -> None:
    """Refuse formats of the export with which a later step of a pipeline would fail.

    Raises:
        InputError: There is no ONNX network to be quantized, or AIR is wanted off Ascend.
    """
    if "onnx" not in config.export.formats:
        raise InputError(
            f"export.formats = {list(config.export.formats)}: the pipeline quantizes the ONNX network; add onnx to them"
        )
    if "air" in config.export.formats and config.train.device_target != "Ascend":
        raise InputError(
            "export.formats: air can be written on an Ascend device only, and train.device_target is "
            f"{config.train.device_target}; drop air from export.formats"
        )


def check_split(data: str, split: str) -> None:
    """Look whether a data set has the split that is to be evaluated.

    Raises:
        InputError: It has not, or there is no data set.
    """
    from kubeyolo.data.folder import split_names

    splits = split_names(data)
    if split not in splits:
        raise InputError(f"evaluate.split: {data} has no split {split!r}{suggest(split, splits)}")


def remote_place(option: str, place: str) -> str:
    """Return the URI of a place that pods reach.

    Raises:
        InputError: It is a folder of this machine.
    """
    location = parse(place)
    if isinstance(location, FileLocation):
        raise InputError(
            f"{option} {place}: pods see no folder of this machine; copy it into the object store with "
            f"'kubeyolo copy {place} minio://bucket/prefix', and give that"
        )
    return location.uri


def _check_names(values: Mapping[str, Any]) -> None:
    from kubeyolo.evaluation.limits import check_regression
    from kubeyolo.evaluation.names import check_runtime
    from kubeyolo.pointers import check_pointer_name

    if "run_name" in values:
        try:
            check_key(values["run_name"])
        except InputError as error:
            raise InputError(f"parameter run_name: {error}") from error
    if values.get("version"):
        check_version(values["version"])
    if "runtime" in values:
        check_runtime(values["runtime"])
    check_pointer_name(values.get("latest") or "")
    check_regression(values.get("max_regression") or 0.0)


def _check_split(values: Mapping[str, Any], split: str) -> None:
    from kubeyolo.data.folder import REQUIRED_SPLITS
    from kubeyolo.pointers import read_data_pointer

    if split in REQUIRED_SPLITS:
        return
    if values.get("data"):
        check_split(values["data"], split)
    elif values.get("pointer"):
        check_split(read_data_pointer(values["pointer"]), split)


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
