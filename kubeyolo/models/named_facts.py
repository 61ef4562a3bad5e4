"""The names and facts of all detectors, and checks of training settings against them, without MindSpore."""

from __future__ import annotations

from typing import Literal

from kubeyolo.config.schema import Config
from kubeyolo.config.section import MOST_PIXELS
from kubeyolo.config.training_schema import TrainConfig
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


def training_sizes(facts: ModelFacts, train: TrainConfig) -> tuple[int, ...]:
    """Return the sides in pixels of the images of a training, ascending; one side without multi-scale training."""
    if not train.multi_scale:
        return (train.image_size,)
    return train.sizes or facts.training_sizes(train.image_size)


def check_export_size(config: Config) -> None:
    """Refuse a size of exported files whose sides are not multiples of the coarsest stride of the model.

    Raises:
        InputError: A side is not a multiple of the stride.
    """
    stride, size = max(model_facts(config.model).strides), config.export.input_size or ()
    if any(side % stride for side in size):
        near = "x".join(str(max(stride, round(side / stride) * stride)) for side in size)
        raise InputError(
            f"export.image_size = {config.export.image_size}: {config.model} needs multiples of {stride}, "
            f"such as {near} (height x width)"
        )


def check_image_size(config: Config) -> None:
    """Refuse image sizes that are not multiples of the coarsest stride of the model, or that do not fit each other.

    Raises:
        InputError: A size is not a multiple of the stride, or the image size is outside the sizes of the training.
    """
    facts, train = model_facts(config.model), config.train
    stride, size, sizes = max(facts.strides), train.image_size, training_sizes(facts, train)
    if size % stride:
        raise InputError(
            f"train.image_size = {size}: {config.model} needs a multiple of {stride}, "
            f"such as {max(stride, round(size / stride) * stride)}"
        )
    if uneven := [each for each in sizes if each % stride]:
        raise InputError(
            f"train.sizes has {uneven[0]}: {config.model} needs multiples of {stride}, "
            f"such as {max(stride, round(uneven[0] / stride) * stride)}"
        )
    if not sizes[0] <= size <= sizes[-1]:
        near = sorted({max(stride, 64, size - stride), size, min(MOST_PIXELS, size + stride)})
        raise InputError(
            f"train.image_size = {size} is outside the sizes of this multi-scale training, {sizes[0]} to {sizes[-1]}: "
            f"set train.sizes, such as --set train.sizes={','.join(map(str, near))}, "
            "or train.multi_scale=false"
        )


def check_precision(config: Config) -> None:
    """Refuse a precision for which the device of the training has no kernels.

    Raises:
        InputError: The precision is bfloat16, and the device is a CPU.
    """
    train = config.train
    if train.compute_type == "bfloat16" and train.device_target == "CPU":
        raise InputError(
            "train.precision = bfloat16: MindSpore has no kernels for it on a CPU; set train.precision to float32, or "
            "train.device_target to Ascend"
        )


def check_batch_norm(config: Config, section: Literal["train", "pretrain"]) -> None:
    """Refuse batches in which batch normalization sees a single value for each channel, which has no variance.

    Args:
        config: The configuration.
        section: Whether the detector is trained, or its backbone pretrained.

    Raises:
        InputError: The batch is one image, and the coarsest feature map one cell.
    """
    part = config.train if section == "train" else config.pretrain
    facts = model_facts(config.model)
    stride = max(facts.strides)
    smallest = training_sizes(facts, config.train)[0] if section == "train" else part.image_size
    is_shared = section == "train" and config.train.sync_bn and config.train.processes > 1
    if part.per_batch_size > 1 or smallest > stride or is_shared:
        return
    is_listed = section == "train" and config.train.multi_scale
    key, named = (
        ("train.sizes", f"{smallest} px in train.sizes")
        if is_listed
        else (f"{section}.image_size", f"{section}.image_size = {part.image_size}")
    )
    # A map of two cells a side: training images are multiples of the stride, crops of 32.
    larger = 2 * stride if section == "train" else stride + 32
    raise InputError(
        f"{section}.per_batch_size = 1 with {named}: the coarsest feature map of "
        f"{config.model} is then one cell of one image, and batch normalization needs more than one value; "
        f"set {section}.per_batch_size to 2 or more, or {key} to {larger} or more"
    )
