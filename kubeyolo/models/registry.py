"""Builds the networks of all detectors by name.

Importing this module does not import MindSpore: the module of a network is imported when the network is built.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kubeyolo.errors import InputError
from kubeyolo.models.facts import Anchors, ModelFacts
from kubeyolo.models.named_facts import model_facts
from kubeyolo.models.pytorch_facts import YOLOV5_NETWORK


def build_model(
    name: str,
    num_classes: int,
    anchors: Sequence[Sequence[Sequence[float]]] | None = None,
    seed: int = 0,
    bn_eps: float | None = None,
) -> Any:
    """Build a detector with fresh weights, which depend only on the name, the classes and the seed.

    Args:
        name: A registered name.
        num_classes: Number of classes, at least 1.
        anchors: (level, anchor, 2) widths and heights in pixels, instead of the published anchors.
        seed: Seed of the weights.
        bn_eps: Added to the variance by the batch normalizations, instead of the value in the facts of the model: some
            programs use and train the same weights with a different value.

    Returns:
        A :class:`kubeyolo.models.detector.Detector` (``mindspore.nn.Cell``).

    Raises:
        InputError: Unknown name, no classes, anchors that do not fit the model, or an impossible ``bn_eps``.
    """
    facts = model_facts(name)
    if num_classes < 1:
        raise InputError(f"model {name!r}: num_classes is {num_classes}, must be at least 1")
    if anchors is not None:
        facts = replace(facts, anchors=_checked_anchors(facts, anchors))
    if bn_eps is not None:
        facts = replace(facts, bn_eps=_checked_eps(facts, bn_eps))
    from kubeyolo.models.initialisation import initialise_detector

    detector = importlib.import_module(facts.network).build_detector(facts, num_classes)
    initialise_detector(detector, seed)
    return detector


def build_backbone(name: str, seed: int = 0) -> Any:
    """Build the backbone of a detector alone, with the weights it has in ``build_model(name, ..., seed=seed)``.

    Returns:
        A ``mindspore.nn.Cell`` that maps images (N, 3, H, W) to one feature map (N, C, H/s, W/s) for each
        stride s of the detector, with the channels C in ``.out_channels``.

    Raises:
        InputError: No detector has this name.
    """
    facts = model_facts(name)
    from kubeyolo.models.initialisation import initialise

    backbone = importlib.import_module(facts.network).build_backbone(facts)
    # The parameters of cells that were appended to a list lack the name of the list until all names are updated.
    backbone.update_parameters_name()
    initialise(backbone, seed, prefix="backbone.")
    return backbone


def _checked_eps(facts: ModelFacts, bn_eps: float) -> float:
    if not 0 < bn_eps < 1:
        raise InputError(f"model {facts.name!r}: bn_eps is {bn_eps}, must be between 0 and 1")
    if bn_eps != facts.bn_eps and facts.network == YOLOV5_NETWORK:
        raise InputError(f"model {facts.name!r}: bn_eps is {bn_eps}, must be {facts.bn_eps} for this family")
    return bn_eps


def _checked_anchors(facts: ModelFacts, anchors: Sequence[Sequence[Sequence[float]]]) -> Anchors:
    levels, count = len(facts.strides), facts.anchors_per_level
    shape = [[len(anchor) for anchor in level] for level in anchors]
    if shape != [[2] * count] * levels:
        raise InputError(
            f"model {facts.name!r}: anchors must be {levels} levels of {count} (width, height) pairs, "
            f"but have shape {shape}"
        )
    if min(side for level in anchors for anchor in level for side in anchor) <= 0:
        raise InputError(f"model {facts.name!r}: anchors must be larger than 0 pixels, are {anchors}")
    return tuple(tuple((float(width), float(height)) for width, height in level) for level in anchors)
