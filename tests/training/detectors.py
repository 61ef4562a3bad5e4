"""Bundles of detectors with random weights, for trainings to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from kubeyolo.bundle import WEIGHTS, BundleManifest
from kubeyolo.models.named_facts import model_facts
from kubeyolo.publishing import publish_bundle
from kubeyolo.storage.place import Place


def manifest_of(model: str, classes: tuple[str, ...], **more: Any) -> BundleManifest:
    facts = model_facts(model)
    return BundleManifest(
        model=model, classes=classes, image_size=(64, 64), strides=facts.strides, anchors=facts.anchors, **more
    )


def detector_bundle(folder: Path, model: str, classes: tuple[str, ...], seed: int = 5) -> str:
    """Publish a detector with random weights and statistics."""
    from kubeyolo.models.registry import build_model

    rng = np.random.default_rng(seed)
    arrays = {}
    for parameter in build_model(model, len(classes), seed=seed).get_parameters():
        noise = rng.uniform(0.9, 1.1, parameter.shape).astype(np.float32)
        arrays[parameter.name] = parameter.asnumpy() * noise + (0.01 * noise if "moving_mean" in parameter.name else 0)
    folder.mkdir()
    save_file(arrays, folder / WEIGHTS)
    return publish_bundle(Place.of(folder / "bundle"), manifest_of(model, classes), {WEIGHTS: folder / WEIGHTS}).uri
