"""Warns of weights that are far larger than at the start: the training has diverged, even if its loss looks normal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from kubeyolo.arrays import Float32Array
from kubeyolo.config.training_schema import PretrainConfig, TrainConfig

if TYPE_CHECKING:
    from mindspore import Parameter, nn

FACTOR = 30.0
"""A weight that grows by this factor or more causes a warning."""


def weight_sizes(network: nn.Cell) -> dict[str, float]:
    """Return the root mean square of each trained parameter by its name; empty if nothing is trained."""
    return {name: _size(parameter.asnumpy()) for name, parameter in _trained(network)}


def usual_sizes(network: nn.Cell) -> dict[str, float]:
    """Return the sizes to compare with at the end: those before the first step, or those of fresh weights if larger.

    Weights of a pretrained backbone may be close to 0, and may grow to the size of fresh weights. Biases start at 0 and
    weights of batch normalizations at 1; a size of 1 is normal for both.
    """
    fresh = {
        # Fresh weights are drawn from U(-b, b) with b = 1/√(inputs per output).
        name: 1 / math.sqrt(3 * math.prod(parameter.shape[1:])) if len(parameter.shape) > 1 else 1.0
        for name, parameter in _trained(network)
    }
    return {name: max(size, fresh[name]) for name, size in weight_sizes(network).items()}


def growth_warnings(
    before: Mapping[str, float], after: Mapping[str, float], section: TrainConfig | PretrainConfig
) -> list[str]:
    """Warn if parameters have grown by :data:`FACTOR` or more: count them, and name the one that has grown most.

    Args:
        before: Sizes before the first step by name, from :func:`usual_sizes`.
        after: Sizes at the end by name, from :func:`weight_sizes`.
        section: Settings of the training.
    """
    grown = {name: after[name] / size for name, size in before.items() if after[name] >= FACTOR * size}
    if not grown:
        return []
    name = max(grown, key=lambda each: grown[each])
    others = f", and {len(grown)} of {len(before)} parameters at least {FACTOR:g} times" if len(grown) > 1 else ""
    return [
        f"the weights are far larger than at the start: {name} {grown[name]:.3g} times (root mean square "
        f"{after[name]:.3g}, at the start {before[name]:.3g}){others}. The training has most likely diverged, "
        f"even if its loss looks normal; {_remedy(section)}"
    ]


def _remedy(section: TrainConfig | PretrainConfig) -> str:
    """Return the likeliest cause, and the option to type."""
    key = "train" if isinstance(section, TrainConfig) else "pretrain"
    fields = type(section).model_fields
    usual, decay = float(fields["lr"].default), float(fields["weight_decay"].default)
    if isinstance(section, TrainConfig) and section.optimizer == "adamw":
        usual = float(PretrainConfig.model_fields["lr"].default)
    again = "train again into a different output"
    if section.lr <= usual and section.weight_decay < decay:
        return (
            f"the likeliest cause is {key}.weight_decay = {section.weight_decay:g}: {again} with "
            f"--set {key}.weight_decay={decay:g}"
        )
    lower = min(section.lr / 10, usual)
    return f"the likeliest cause is {key}.lr = {section.lr:g}: {again} with --set {key}.lr={lower:.3g}"


def _trained(network: nn.Cell) -> Iterator[tuple[str, Parameter]]:
    """Yield trained parameters by their names in the network: an optimizer changes the ``name`` of a parameter."""
    return ((name, parameter) for name, parameter in network.parameters_and_names() if parameter.requires_grad)


def _size(array: Float32Array) -> float:
    return math.sqrt(float(np.mean(np.square(array, dtype=np.float64))))
