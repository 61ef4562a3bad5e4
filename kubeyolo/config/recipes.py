"""Recipes: defaults of schedule and augmentation for a training from scratch or from a detector.

A recipe is a layer between the preset of a model and the values of the user. The recipe ``scratch`` is the preset
itself; ``finetune`` is a file for each family, with values, or with factors of the preset's values.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kubeyolo.config.load import RECIPE_ORIGIN, ResolvedConfig, preset, read_mapping, with_values

FINETUNE = "finetune"

_PRESETS = Path(__file__).with_name("presets")


def with_recipe(resolved: ResolvedConfig, from_detector: bool) -> ResolvedConfig:
    """Return a configuration with the values of its recipe; values that the user has set stay.

    Args:
        resolved: The configuration, without a recipe.
        from_detector: Whether the training starts from a detector: then the recipe is by default ``finetune``.
    """
    config = resolved.config
    # A quantization-aware training always starts from a detector: the preset that switches it on is its recipe.
    usual = FINETUNE if from_detector and not config.train.fake_quantize else "scratch"
    if (config.recipe or usual) != FINETUNE:
        return resolved
    family, values = finetune_recipe(config.model)
    chosen = {key: value for key, value in values.items() if not resolved.is_set(key)}
    return with_values(resolved, chosen, f"{RECIPE_ORIGIN}{FINETUNE} of the {family} family")


def finetune_recipe(model: str) -> tuple[str, dict[str, Any]]:
    """Return the name of the family of a model, and the values of its recipe for fine-tuning by dotted key."""
    document = _read(f"_finetune{_read(model)['extends']}")
    factors: Mapping[str, float] = document.get("factors", {})
    usual = preset(model)
    # A product such as 0.012 * 0.1 is written with all digits of its rounding error otherwise.
    scaled = {key: float(f"{usual[key] * factor:.12g}") for key, factor in factors.items()}
    return document["family"], {**document.get("values", {}), **scaled}


def _read(name: str) -> dict[str, Any]:
    return read_mapping(_PRESETS / f"{name}.yaml", "recipe")
