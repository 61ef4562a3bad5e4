"""Where in a store a step writes: a place whose name is the digest of everything that its result depends on.

The same work finds its result, or its interrupted training, again; other work never meets it. The digest of the source
comes from ``configure``, the versions of the packages that compute from where the step runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kubeyolo.config.load import config_digest
from kubeyolo.config.schema import Config
from kubeyolo.source import results_versions, weights_versions
from kubeyolo.storage.location import parse
from kubeyolo.storage.reference import split_reference
from kubeyolo.storage.uri import join_uri
from kubeyolo.training.spec import TrainingSpec, training_identity

_DIGITS = 12
_ROOMS = (_BACKBONES, _TRAININGS) = ("backbones", "trainings")
GATES = {"min_ap"}
"""Settings that judge a result and do not change it."""


def backbone_output(store: str, config: Config, images_digest: str, code: str) -> str:
    """Return the URI of a pretraining: on images of this digest, with these settings and this code."""
    spec = TrainingSpec(task="backbone", dataset="", output="", config=config)
    identity = training_identity(spec, images_digest, "", spec.processes)
    return _place(store, _BACKBONES, config.model, {**identity, "code": code, "packages": weights_versions()})


def training_output(store: str, config: Config, dataset_digest: str, backbone: str, code: str) -> str:
    """Return the URI of a training: on this data set, from this backbone (a reference), with this configuration."""
    spec = TrainingSpec(dataset="", output="", config=config)
    uri, digest = split_reference(backbone)
    identity = training_identity(spec, dataset_digest, digest or uri, spec.processes)
    return _place(store, _TRAININGS, config.model, {**identity, "code": code, "packages": weights_versions()})


def is_named_after_training(output: str, model: str) -> bool:
    """Tell whether an output has the name of :func:`backbone_output` or :func:`training_output`, of any settings."""
    *_, room, name = ("", *parse(output).uri.split("/"))
    return room in _ROOMS and re.fullmatch(rf"{re.escape(model)}-[0-9a-f]{{{_DIGITS}}}", name) is not None


def result_output(
    store: str, step: str, model: str, digests: Mapping[str, str], sections: Mapping[str, Mapping[str, Any]], code: str
) -> str:
    """Return the URI where a step writes that measures a bundle or derives another from it.

    Args:
        store: URI of the store.
        step: Name of the step.
        model: Name of the model.
        digests: Of what it reads: bundle, data set and the like, by name.
        sections: The configuration that it reads.
        code: Digest of the source.
    """
    settings = {
        name: {key: value for key, value in values.items() if key not in GATES} for name, values in sections.items()
    }
    identity = {**digests, **settings, "code": code, "packages": results_versions()}
    return _place(store, f"results/{step}", model, identity)


def _place(store: str, room: str, model: str, identity: Mapping[str, Any]) -> str:
    return join_uri(store, room, f"{model}-{config_digest(identity)[:_DIGITS]}")
