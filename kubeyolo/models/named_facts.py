"""The names and facts of all detectors, and checks of training settings against them, without MindSpore."""

from __future__ import annotations

from typing import Literal

from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError, check_known
from kubeyolo.models.darknet_facts import DARKNET_FACTS
from kubeyolo.models.facts import ModelFacts
from kubeyolo.models.pytorch_facts import SCALEDYOLOV4_FACTS, YOLOV5_FACTS

_FACTS: dict[str, ModelFacts] = {facts.name: facts for facts in (*YOLOV5_FACTS, *DARKNET_FACTS, *SCALEDYOLOV4_FACTS)}


def model_names() -> tuple[str, ...]:
    """Return the names of all registered detectors, family by family, small before large."""
    return tuple(_FACTS)


def model_facts(name: str) -> ModelFacts:
    """Return the facts of a detector.

    Raises:
        InputError: No detector has this name; the message suggests the nearest name.
    """
    check_known("model", name, _FACTS)
    return _FACTS[name]


def check_image_size(config: Config) -> None:
    """Refuse an image size that is not a multiple of the coarsest stride of the model.

    Raises:
        InputError: The image size is not a multiple of the stride.
    """
    stride, size = max(model_facts(config.model).strides), config.train.image_size
    if size % stride:
        raise InputError(
            f"train.image_size = {size}: {config.model} needs a multiple of {stride}, "
            f"such as {max(stride, round(size / stride) * stride)}"
        )


def check_batch_norm(config: Config, section: Literal["train", "pretrain"]) -> None:
    """Refuse batches in which batch normalisation sees a single value for each channel, which has no variance.

    Args:
        config: The configuration.
        section: Whether the detector is trained, or its backbone pretrained.

    Raises:
        InputError: The batch is one image, and the coarsest feature map one cell.
    """
    part = config.train if section == "train" else config.pretrain
    stride = max(model_facts(config.model).strides)
    is_shared = section == "train" and config.train.sync_bn and config.train.processes > 1
    if part.per_batch_size > 1 or part.image_size > stride or is_shared:
        return
    # A map of two cells a side: training images are multiples of the stride, crops of 32.
    larger = 2 * stride if section == "train" else stride + 32
    raise InputError(
        f"{section}.per_batch_size = 1 with {section}.image_size = {part.image_size}: the coarsest feature map of "
        f"{config.model} is then one cell of one image, and batch normalisation needs more than one value; "
        f"set {section}.per_batch_size to 2 or more, or {section}.image_size to {larger} or more"
    )
