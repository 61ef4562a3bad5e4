"""The parameters of a run of the detector training pipeline, made of what a person says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubeyolo.bundle import check_version
from kubeyolo.config.load import load_config, sparse_values
from kubeyolo.errors import InputError
from kubeyolo.runs.arguments import SECTIONS, check_formats, check_split
from kubeyolo.runs.naming import run_name
from kubeyolo.source import source_digest
from kubeyolo.storage.location import FileLocation, parse

_WITHOUT_RESULTS = frozenset({"launcher", "cluster"})
_SAID_ELSEWHERE = {
    **{name: f"give --{name}" for name in ("data", "store", "model", "classification", "version")},
    "fingerprint": "it is taken from what lies at --data",
    "classification_fingerprint": "it is taken from what lies at --classification",
    "code_digest": "it is that of the installed library",
    "run_name": "it is made of all that the results depend on; --name is that of the run in Kubeflow",
}
"""Parameters that are not given as pairs, and what makes them instead."""


@dataclass(frozen=True)
class RunParameters:
    """Everything a run's results depend on; its name is made of them."""

    name: str
    model: str
    data: str
    store: str
    fingerprint: str
    classification: str = ""
    classification_fingerprint: str = ""
    version: str = ""
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    code_digest: str = field(default_factory=source_digest)

    def arguments(self) -> dict[str, Any]:
        """Return the parameters of the pipeline."""
        sections = {f"{section}_overrides": dict(self.overrides.get(section, {})) for section in SECTIONS}
        return {
            "data": self.data,
            "store": self.store,
            "model": self.model,
            "run_name": self.name,
            "version": self.version,
            "classification": self.classification,
            "fingerprint": self.fingerprint,
            "classification_fingerprint": self.classification_fingerprint,
            "code_digest": self.code_digest,
            **sections,
        }


def run_parameters(
    data: str,
    store: str,
    model: str | None = None,
    config_file: Path | None = None,
    sets: tuple[str, ...] = (),
    classification: str = "",
    version: str = "",
    pairs: Mapping[str, Any] | None = None,
) -> RunParameters:
    """Return the parameters of a run, after a look at the configuration and at what lies at ``data``.

    Args:
        data: Folder or URI of the data set.
        store: Folder or URI of the store.
        model: Name of the model; without it the configuration names it.
        config_file: YAML file of values over those of the preset.
        sets: ``key=value`` pairs over those of the file.
        classification: Folder or URI of images by class to pretrain on.
        version: Version to publish under.
        pairs: Parameters of the pipeline that are given beside these; those that change results are in the name.

    Raises:
        InputError: The configuration is wrong, there is no data set, or a pair is of what is said otherwise.
    """
    from kubeyolo.data.digest import fingerprint
    from kubeyolo.models.registry import check_image_size
    from kubeyolo.training.class_images import class_fingerprint

    config = load_config(model, config_file, sets)
    check_formats(config)
    check_image_size(config)
    if version:
        check_version(version)
    overrides = sparse_values(config_file, sets)
    overrides.pop("model", None)
    _check_pairs(pairs or {}, overrides)
    data, store = full_uri(data), full_uri(store)
    print_of_data = fingerprint(data)
    check_split(data, config.evaluate.split)
    classification = full_uri(classification) if classification else ""
    print_of_classes = class_fingerprint(classification) if classification else ""
    parameters = {
        "config": config.model_dump(mode="json"),
        "fingerprint": print_of_data,
        "classification": print_of_classes,
        "store": store,
        "version": version,
    }
    more = {name: value for name, value in (pairs or {}).items() if name not in _WITHOUT_RESULTS}
    if more:
        parameters["parameters"] = more
    return RunParameters(
        name=run_name(config.model, data, parameters),
        model=config.model,
        data=data,
        store=store,
        fingerprint=print_of_data,
        classification=classification,
        classification_fingerprint=print_of_classes,
        version=version,
        overrides=overrides,
    )


def _check_pairs(pairs: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
    """Refuse to say twice what has an option, or what is made here.

    Raises:
        InputError: One of them is given as a parameter too.
    """
    for name in pairs:
        if name in _SAID_ELSEWHERE:
            raise InputError(f"--param {name}: {_SAID_ELSEWHERE[name]}")
        section = name.removesuffix("_overrides")
        if section != name and overrides.get(section):
            raise InputError(
                f"--param {name}: --config or --set has values of the section {section} too; give all of them there, "
                f"as --set {section}.KEY=VALUE"
            )


def full_uri(place: str) -> str:
    """Return a path as an absolute one, so that a step finds it from any folder; other URIs as they are."""
    location = parse(place)
    return str(location.path) if isinstance(location, FileLocation) else location.uri
