"""The networks of all detectors by name, what they can be trained with, and their facts.

Importing this module does not import MindSpore: a network's module is imported when it is built.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError
from kubeyolo.models import yolov5_facts
from kubeyolo.models.facts import Anchors, ModelFacts
from kubeyolo.models.named_facts import model_facts as model_facts
from kubeyolo.models.named_facts import model_names as model_names


def check_image_size(config: Config) -> None:
    """Refuse training images that the coarsest level of the model does not divide.

    Raises:
        InputError: It does not.
    """
    stride, size = max(model_facts(config.model).strides), config.train.image_size
    if size % stride:
        raise InputError(
            f"train.image_size = {size}: {config.model} needs a multiple of {stride}, "
            f"such as {max(stride, round(size / stride) * stride)}"
        )


def check_batch_norm(config: Config, section: Literal["train", "pretrain"]) -> None:
    """Refuse batches that leave batch normalisation one value for each channel: one value has no variance.

    Args:
        config: The configuration.
        section: Whether the detector is trained, or its backbone pretrained.

    Raises:
        InputError: The batch is one image, and the coarsest feature map one cell.
    """
    part = config.train if section == "train" else config.pretrain
    stride = max(model_facts(config.model).strides)
    if part.per_batch_size > 1 or part.image_size > stride:
        return
    # A map of two cells a side: training images are multiples of the stride, crops of 32.
    larger = 2 * stride if section == "train" else stride + 32
    raise InputError(
        f"{section}.per_batch_size = 1 with {section}.image_size = {part.image_size}: the coarsest feature map of "
        f"{config.model} is then one cell of one image, and batch normalisation has no variance of one value; "
        f"set {section}.per_batch_size to 2 or more, or {section}.image_size to {larger} or more"
    )


def build_model(
    name: str,
    num_classes: int,
    anchors: Sequence[Sequence[Sequence[float]]] | None = None,
    seed: int = 0,
    bn_eps: float | None = None,
) -> Any:
    """Build a detector with fresh weights, which depend on nothing but the name, the classes and the seed.

    Args:
        name: A registered name.
        num_classes: Number of classes, at least 1.
        anchors: (level, anchor, 2) widths and heights in pixels, in place of the published ones.
        seed: Seed of the weights.
        bn_eps: Added to the variance by the batch normalisations, in place of what the model's own program adds:
            the same weights have been used, and trained, with others.

    Returns:
        A :class:`kubeyolo.models.detector.Detector` (``mindspore.nn.Cell``).

    Raises:
        InputError: Unknown name, no classes, anchors of another shape than the model's, or ``bn_eps`` is none.
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
    # The parameters of cells that were appended to a list lack its name until the whole is named anew.
    backbone.update_parameters_name()
    initialise(backbone, seed, prefix="backbone.")
    return backbone


def _checked_eps(facts: ModelFacts, bn_eps: float) -> float:
    if not 0 < bn_eps < 1:
        raise InputError(f"model {facts.name!r}: bn_eps is {bn_eps}, must be between 0 and 1")
    if bn_eps != facts.bn_eps and facts.network == yolov5_facts.NETWORK:
        raise InputError(f"model {facts.name!r}: bn_eps is {bn_eps}; all programs use {facts.bn_eps} for this family")
    return bn_eps


def _checked_anchors(facts: ModelFacts, anchors: Sequence[Sequence[Sequence[float]]]) -> Anchors:
    levels, count = len(facts.strides), facts.anchors_per_level
    shape = [[len(anchor) for anchor in level] for level in anchors]
    if shape != [[2] * count] * levels:
        raise InputError(
            f"model {facts.name!r}: anchors must be {levels} levels of {count} (width, height) pairs, "
            f"are of shape {shape}"
        )
    if min(side for level in anchors for anchor in level for side in anchor) <= 0:
        raise InputError(f"model {facts.name!r}: anchors must be larger than 0 pixels, are {anchors}")
    return tuple(tuple((float(width), float(height)) for width, height in level) for level in anchors)
