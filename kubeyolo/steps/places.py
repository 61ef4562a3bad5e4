"""Where in a store a step writes.

A backbone and a training have names made of everything their weights depend on, so that the same command finds an
interrupted training again and another one never meets its checkpoints. The other steps write below their run.
"""

from __future__ import annotations

import hashlib
import json

from kubeyolo.config.load import config_digest
from kubeyolo.config.schema import Config
from kubeyolo.storage.uri import join_uri

_DIGITS = 12


def backbone_output(store: str, config: Config, images_digest: str, code_digest: str) -> str:
    """Return the URI of a pretraining: on images of this digest, with these settings and this code."""
    parts = [config.model, config_digest(config.pretrain), config.train.seed, images_digest, code_digest]
    return join_uri(store, "backbones", f"{config.model}-{_key(parts)}")


def training_output(store: str, config: Config, dataset_digest: str, backbone: str, code_digest: str) -> str:
    """Return the URI of a training: on this data set, from this backbone, with these settings and this code."""
    sections = [config_digest(section) for section in (config.data, config.augment, config.train)]
    parts = [config.model, *sections, dataset_digest, backbone, code_digest]
    return join_uri(store, "trainings", f"{config.model}-{_key(parts)}")


def run_output(store: str, run_name: str, step: str) -> str:
    """Return the URI of a step of a run."""
    return join_uri(store, "runs", run_name, step)


def _key(parts: list[str | int]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_DIGITS]
