"""Where in a store a step writes.

A backbone and a training have names made of everything their weights depend on, so that the same command finds an
interrupted training again and another one never meets its checkpoints. The other steps of a run write below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubeyolo.bundle import Bundle
from kubeyolo.config.load import config_digest
from kubeyolo.config.schema import Config
from kubeyolo.storage.uri import join_uri
from kubeyolo.training.spec import TrainingSpec, training_identity

_DIGITS = 12


def backbone_output(store: str, config: Config, images_digest: str, code_digest: str) -> str:
    """Return the URI of a pretraining: on images of this digest, with these settings and this code."""
    spec = TrainingSpec(task="backbone", dataset="", output="", config=config)
    return join_uri(store, "backbones", _name(spec, images_digest, "", code_digest))


def training_output(store: str, config: Config, dataset_digest: str, backbone: str, code_digest: str) -> str:
    """Return the URI of a training: on this data set, from this backbone, with these settings and this code."""
    spec = TrainingSpec(dataset="", output="", config=config)
    return join_uri(store, "trainings", _name(spec, dataset_digest, backbone, code_digest))


def run_output(store: str, run_name: str, step: str) -> str:
    """Return the URI of a step of a run."""
    return join_uri(store, "runs", run_name, step)


def command_output(store: str, step: str, bundle: Bundle, dataset_digest: str, settings: Mapping[str, Any]) -> str:
    """Return the URI where a step that is called alone writes: made of the bundle's files, the data and the settings.

    It is never the place of a step of a run, whose results would be replaced.
    """
    files = {name: file.sha256 for name, file in bundle.manifest.files.items()}
    digest = config_digest({"files": files, "dataset": dataset_digest, **settings})[:_DIGITS]
    return join_uri(store, "alone", f"{bundle.manifest.model}-{digest}", step)


def _name(spec: TrainingSpec, images_digest: str, backbone: str, code_digest: str) -> str:
    identity = training_identity(spec, images_digest, backbone, spec.processes)
    return f"{spec.config.model}-{config_digest({**identity, 'code': code_digest})[:_DIGITS]}"
