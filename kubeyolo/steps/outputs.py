"""Where in a store a step writes: a folder whose name is the digest of everything that its result depends on.

The same work finds its result, or its interrupted training, again; different work has different folders. The digest of
the code comes from ``configure``, the versions of packages from the machine or image that the step runs in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kubeyolo.config.load import config_digest, without_gates
from kubeyolo.config.schema import Config
from kubeyolo.source import results_versions, weights_versions
from kubeyolo.storage.place import Place
from kubeyolo.training.spec import TrainingSpec, training_identity

_DIGITS = 12
_ROOMS = (_BACKBONES, _TRAININGS) = ("backbones", "trainings")


def backbone_output(store: Place, config: Config, images_digest: str, code: str) -> Place:
    """Return the output of a pretraining on images with this digest, with these settings and this code."""
    spec = TrainingSpec(task="backbone", dataset="", output="", config=config)
    identity = training_identity(spec, images_digest, "", spec.processes)
    return _place(store, _BACKBONES, config.model, {**identity, "code": code, "packages": weights_versions()})


def training_output(
    store: Place, config: Config, dataset_digest: str, backbone: Place | None, code: str, weights: str = ""
) -> Place:
    """Return the output of a training on this data set, with this configuration.

    Args:
        store: The store.
        config: The configuration.
        dataset_digest: Content digest of the data set.
        backbone: Bundle of the backbone that it starts from; None if there is none.
        code: Digest of the code.
        weights: Digest of the detector that it starts from; empty if there is none.
    """
    spec = TrainingSpec(dataset="", output="", config=config)
    start = "" if backbone is None else backbone.digest or backbone.uri
    identity = training_identity(spec, dataset_digest, start, spec.processes, weights)
    return _place(store, _TRAININGS, config.model, {**identity, "code": code, "packages": weights_versions()})


def is_named_after_training(output: Place, model: str) -> bool:
    """Tell whether an output is named as by :func:`backbone_output` or :func:`training_output`, with any settings."""
    *_, room, name = ("", *output.uri.split("/"))
    return room in _ROOMS and re.fullmatch(rf"{re.escape(model)}-[0-9a-f]{{{_DIGITS}}}", name) is not None


def result_output(
    store: Place,
    step: str,
    model: str,
    digests: Mapping[str, str],
    sections: Mapping[str, Mapping[str, Any]],
    code: str,
) -> Place:
    """Return the output of a step that evaluates a bundle or derives a new bundle from it.

    Args:
        store: The store.
        step: Name of the step.
        model: Name of the model.
        digests: Digests of its inputs by name, such as bundle and data set.
        sections: The configuration that it reads, by section.
        code: Digest of the source.
    """
    identity = {**digests, **without_gates(sections), "code": code, "packages": results_versions()}
    return _place(store, f"results/{step}", model, identity)


def _place(store: Place, room: str, model: str, identity: Mapping[str, Any]) -> Place:
    return store / room / f"{model}-{config_digest(identity)[:_DIGITS]}"
