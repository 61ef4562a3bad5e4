"""Anchors that replace the anchors of a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from kubeyolo.config.anchor_forms import anchors_text
from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError, one_line
from kubeyolo.models.facts import Anchors, ModelFacts
from kubeyolo.models.named_facts import model_facts

Pair = tuple[float, float]

_SMALLEST_SIDE = 0.1
_LEAST_SIDE = 1.0
"""In pixels; if no side of any anchor is longer, the anchors are fractions of the image."""


def given_anchors(facts: ModelFacts, given: Sequence[Sequence[float]], key: str = "train.anchors") -> Anchors:
    """Return the anchors of a model from lists of widths and heights in pixels.

    Args:
        facts: The model.
        given: One list for each level, or a single list, which is cut into levels.
        key: The key or option that the anchors come from, for the message.

    Raises:
        InputError: The number of anchors does not fit the model, anchors are fractions of the image, or they are not in
            the order of its levels.
    """
    value = f"{key} = {one_line(_as_written(given), 200)}"
    levels = _levels(facts, given, value)
    if max(side for level in levels for pair in level for side in pair) <= _LEAST_SIDE:
        raise InputError(
            f"{value}: no side is longer than {_LEAST_SIDE:g} pixel; give widths and heights in pixels of the "
            "training images, not fractions of the image"
        )
    least = min(side for level in levels for pair in level for side in pair)
    if least < _SMALLEST_SIDE:
        raise InputError(
            f"{value}: an anchor side of {least:g} pixels is below the minimum of {_SMALLEST_SIDE:g}; "
            "give anchor widths and heights in pixels"
        )
    if len(given) == 1:
        _check_sorted(levels, value)
    else:
        _check_order(facts, levels, value)
    return levels


def trained_facts(config: Config) -> ModelFacts:
    """Return the facts of the detector that a configuration trains, with ``train.anchors`` if they are set.

    Raises:
        InputError: No detector has this name, or the anchors do not fit it.
    """
    facts, given = model_facts(config.model), config.train.anchors
    return replace(facts, anchors=given_anchors(facts, given)) if given else facts


def other_anchors(config: Config) -> Anchors | None:
    """Return the anchors that a configuration trains with; None if they are the anchors of the model.

    Weights depend on these values, not on the form in which the anchors are written.

    Raises:
        InputError: As :func:`trained_facts`.
    """
    anchors = trained_facts(config).anchors
    return None if anchors == model_facts(config.model).anchors else anchors


def cut_into_levels(facts: ModelFacts, pairs: Sequence[Sequence[float]]) -> Anchors:
    """Return the anchors of each level from a list of (width, height) with as many anchors as the model has."""
    count = facts.anchors_per_level
    plain = [(float(width), float(height)) for width, height in pairs]
    return tuple(tuple(plain[start : start + count]) for start in range(0, len(plain), count))


def _levels(facts: ModelFacts, given: Sequence[Sequence[float]], value: str) -> Anchors:
    """Return the pairs of each level.

    Raises:
        InputError: The number of anchors does not fit the model.
    """
    levels, count = len(facts.strides), facts.anchors_per_level
    need = f"{facts.name} has {levels} levels of {count} anchors, {2 * levels * count} numbers"
    if len(given) == 1:
        if len(given[0]) != 2 * levels * count:
            raise InputError(f"{value}: these are {len(given[0])} numbers; {need}")
        return cut_into_levels(facts, _pairs(given[0]))
    if len(given) != levels:
        raise InputError(f"{value}: these are {len(given)} lists; {need}")
    for number, numbers in enumerate(given, start=1):
        if len(numbers) != 2 * count:
            raise InputError(f"{value}: list {number} has {len(numbers)} numbers; {need}")
    return tuple(tuple(_pairs(numbers)) for numbers in given)


def _check_sorted(levels: Anchors, value: str) -> None:
    """Refuse a list in which an anchor of a level is larger than an anchor of the next level."""
    areas = [[width * height for width, height in level] for level in levels]
    if any(max(fine) > min(coarse) for fine, coarse in zip(areas, areas[1:], strict=False)):
        pairs = sorted((pair for level in levels for pair in level), key=math.prod)
        text = ", ".join(f"{width:g},{height:g}" for width, height in pairs)
        raise InputError(f"{value}: a single list must go from small to large; sorted by area it is [{text}]")


def _check_order(facts: ModelFacts, levels: Anchors, value: str) -> None:
    """Refuse levels with smaller anchors than a finer level."""
    means = [sum(math.log(math.prod(pair)) for pair in level) for level in levels]
    if all(fine <= coarse for fine, coarse in zip(means, means[1:], strict=False)):
        return
    ordered = [level for _, level in sorted(zip(means, levels, strict=True), key=lambda each: each[0])]
    raise InputError(
        f"{value}: the levels must go from the finest (stride {facts.strides[0]}) to the coarsest (stride "
        f"{facts.strides[-1]}), with small anchors first; in this order they are {anchors_text(ordered)}"
    )


def _pairs(numbers: Sequence[float]) -> list[Pair]:
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _as_written(given: Sequence[Sequence[float]]) -> str:
    lists = ["[" + ", ".join(f"{number:g}" for number in numbers) + "]" for numbers in given]
    return lists[0] if len(lists) == 1 else f"[{', '.join(lists)}]"
