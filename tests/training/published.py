"""What a published detector finds, by an evaluation of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kubeyolo.bundle import open_bundle
from kubeyolo.config.schema import EvaluateConfig
from kubeyolo.data.dataset import open_dataset
from kubeyolo.storage.place import Place
from kubeyolo.training.validation import ap_by_class


def evaluated(dataset: str, output: Path, config: EvaluateConfig) -> tuple[Any, ...]:
    """Return AP, AP50 and AP by class of a published detector, evaluated by this process."""
    from kubeyolo.evaluation.predictor import load_predictor
    from kubeyolo.evaluation.split_evaluation import evaluate_split

    predictor = load_predictor(open_bundle(Place.of(output / "bundle")))
    opened = open_dataset(Place.of(dataset))
    result, _ = evaluate_split(predictor, opened.split("val"), opened.manifest, config)
    return result.numbers["AP"], result.numbers["AP50"], ap_by_class(result)
