"""Checks of a file of weights without building its network, so that MindSpore is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kubeyolo.errors import InputError
from kubeyolo.models.facts import Anchors, ModelFacts
from kubeyolo.models.named_facts import model_facts
from kubeyolo.weights.darknet import float_count
from kubeyolo.weights.darknet_networks import refuse_other_darknet
from kubeyolo.weights.names import layouts_of
from kubeyolo.weights.other_networks import other_weights
from kubeyolo.weights.stored_array import WeightArray, as_float32
from kubeyolo.weights.weights_file import WeightsFile, read_weights

# Half precision keeps three digits; anchors that differ by less are the published anchors.
_SAME_ANCHOR = 2e-3


def check_file(path: Path, model: str) -> Anchors:
    """Refuse a file that has no weights, or weights of another network if that is recognized; return its anchors.

    Names and shapes of all arrays are compared only when the file is imported.

    Args:
        path: The file.
        model: Name of the model that it should be.

    Raises:
        InputError: The file cannot be used; the message names the network in it if it is known.
    """
    weights, facts = read_weights(path), model_facts(model)
    if weights.format == "darknet":
        check_darknet(path, facts)
    else:
        shapes = {name: tuple(array.shape) for name, array in weights.arrays.items()}
        fault = other_weights(shapes, model, weights.model, has_backbone=False)
        if fault is not None:
            raise InputError(f"{path}: {fault}")
    return anchors_of(weights, facts)


def check_darknet(path: Path, facts: ModelFacts, backbone: bool = False) -> None:
    """Refuse a ``.weights`` file for a model without this format, or with the number of weights of another network.

    Raises:
        InputError: The file has a different network, or the model has no such files.
    """
    if "darknet" not in layouts_of(facts):
        raise InputError(
            f"{path}: model {facts.name!r} cannot be imported from darknet format; give its PyTorch, "
            "MindSpore or safetensors file"
        )
    refuse_other_darknet(path, float_count(path), facts, backbone)


def anchors_of(file: WeightsFile, facts: ModelFacts) -> Anchors:
    """Return the anchors in a file, else the published anchors.

    Raises:
        InputError: The anchors do not fit the model, or are not positive.
    """
    levels = file.anchors if file.anchors is not None else _anchors_in_cells(file.arrays, facts) or facts.anchors
    published, found = np.array(facts.anchors), np.array(levels)
    if found.shape != published.shape or not (np.isfinite(found).all() and (found > 0).all()):
        raise InputError(f"{file.path}: its anchors have shape {found.shape}, or are not positive; get the file again")
    return facts.anchors if np.allclose(found, published, rtol=_SAME_ANCHOR) else levels


def _anchors_in_cells(arrays: Mapping[str, WeightArray], facts: ModelFacts) -> Anchors | None:
    """Return the anchors in the buffer of PyTorch programs, which holds them in units of the level's stride."""
    shape = (len(facts.strides), facts.anchors_per_level, 2)
    for name, array in arrays.items():
        if name.endswith(".anchors") and tuple(array.shape) == shape:
            pixels = as_float32(array).astype(np.float64) * np.array(facts.strides)[:, None, None]
            return tuple(tuple((float(width), float(height)) for width, height in level) for level in pixels)
    return None
