"""The ranges of the values that a network rounds: their names, and the file of a bundle that has them.

The range of a value is an array ``<block>.<kind>.range`` of its smallest and its largest number, next to the weights
``<block>.conv.weight``. This module can be imported without MindSpore.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from kubeyolo.arrays import AnyArray
from kubeyolo.config.schema import Config
from kubeyolo.documents import read_json
from kubeyolo.errors import InputError
from kubeyolo.models.named_facts import model_facts, model_names
from kubeyolo.regular_files import DOCUMENT_SIZE, read_regular

Array = TypeVar("Array")

RANGE = "range"
INPUT, BEFORE, AFTER, SUM = "input", "before", "after", "sum"
"""Input of a convolution, its result before and after the activation function, and the sum of a bottleneck."""

_NETWORKS = ("kubeyolo.models.yolov3", "kubeyolo.models.yolov5")

Ranges = dict[str, tuple[float, float]]
"""Smallest and largest value by the name of the range."""


def can_be_quantized(model: str) -> bool:
    """Tell whether a model can be trained with quantization: models of the networks YOLOv3 and YOLOv5 can."""
    return model_facts(model).network in _NETWORKS


def check_quantization(config: Config, has_weights: bool) -> None:
    """Refuse a quantization-aware training that cannot start.

    Args:
        config: The configuration.
        has_weights: Whether the training starts from a detector.

    Raises:
        InputError: There are no trained weights, the model cannot be quantized, or a setting does not fit.
    """
    train = config.train
    if not train.fake_quantize:
        return
    if not can_be_quantized(config.model):
        known = ", ".join(name for name in model_names() if can_be_quantized(name))
        raise InputError(f"train.fake_quantize = true: {config.model} cannot be trained with quantization; {known} can")
    if not has_weights:
        raise InputError(
            f"train.fake_quantize = true: quantization-aware training of {config.model} starts from trained float "
            "weights; set train.weights, or train the float network first with train.fake_quantize=false"
        )
    if train.compute_type != "float32":
        raise InputError(
            f"train.precision = {train.precision}: quantization-aware training computes in float32; set "
            "train.precision=float32"
        )
    if train.recompute:
        raise InputError(
            "train.recompute = true: ranges cannot be computed again in the backward pass; leave it out, or set "
            "train.fake_quantize=false"
        )


def is_range(name: str) -> bool:
    """Tell whether a parameter is the range of a value."""
    return name.endswith(f".{RANGE}")


def split_ranges(arrays: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the weights, and the ranges, among arrays by name."""
    ranges = {name: array for name, array in arrays.items() if is_range(name)}
    return {name: array for name, array in arrays.items() if name not in ranges}, ranges


def write_ranges(path: Path, arrays: Mapping[str, AnyArray]) -> None:
    """Write ranges, arrays (2,) by name, as JSON with all digits of their float32 values."""
    values = {name: [float(value) for value in arrays[name]] for name in sorted(arrays)}
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def read_ranges(path: Path) -> Ranges:
    """Read a file of :func:`write_ranges`.

    Raises:
        InputError: The file cannot be read, is not a mapping of names to ranges, or a range does not contain 0.
    """
    remedy = "train the network again"
    try:
        values = read_json(read_regular(path, DOCUMENT_SIZE), str(path), remedy)
        ranges = {str(name): (float(low), float(high)) for name, (low, high) in values.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read as ranges of values ({error}); {remedy}") from error
    for name, (low, high) in ranges.items():
        if not (math.isfinite(low) and math.isfinite(high) and low <= 0 <= high):
            raise InputError(f"{path}: {name} is {low} to {high}, must contain 0; {remedy}")
    return ranges
