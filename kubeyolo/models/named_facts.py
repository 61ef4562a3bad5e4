"""The names of all detectors and their facts; what reads no more than these needs no network."""

from __future__ import annotations

from kubeyolo.errors import InputError, suggest
from kubeyolo.models import scaledyolov4_facts, yolov3_facts, yolov4_facts, yolov5_facts
from kubeyolo.models.facts import ModelFacts

_FAMILIES = (yolov5_facts, yolov3_facts, yolov4_facts, scaledyolov4_facts)
_FACTS: dict[str, ModelFacts] = {facts.name: facts for family in _FAMILIES for facts in family.FACTS}


def model_names() -> tuple[str, ...]:
    """Return the names of all registered detectors, family by family, small before large."""
    return tuple(_FACTS)


def model_facts(name: str) -> ModelFacts:
    """Return the facts of a detector.

    Raises:
        InputError: No detector has this name; the message suggests the nearest one.
    """
    if name not in _FACTS:
        raise InputError(f"unknown model {name!r}{suggest(name, _FACTS)}")
    return _FACTS[name]
